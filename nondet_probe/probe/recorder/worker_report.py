"""What a loader's worker tells of its random generators, through a file of its own.

Nothing but the standard library is imported before a worker calls: one that is spawned imports this
module first.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["WorkerReport", "read_report"]

Report = dict[str, list[int]]


class WorkerReport:
    """Stands in for a loader's `worker_init_fn`: calls it, then writes what the generators are now.

    directory: where, by the number of the iterator and of the worker. function: the user's own.
    What it raises passes; that a report cannot be written is no worker's trouble.
    """

    def __init__(
        self, directory: str, iterator: int, function: Callable[[int], object] | None
    ) -> None:
        self._directory = directory
        self._iterator = iterator
        self._function = function

    def __call__(self, worker: int) -> None:
        if self._function is not None:
            self._function(worker)
        with contextlib.suppress(Exception):
            self._write(worker)

    def _write(self, worker: int) -> None:
        import torch
        from torch.utils.data import get_worker_info

        from nondet_probe.probe.recorder.generators import numpy_state, python_state, torch_state

        info: Any = get_worker_info()
        found: Report = {
            "seed": [info.seed],
            "python": list(python_state()),
            "numpy": list(numpy_state()),
            "torch cpu": list(torch_state(torch.default_generator)),
        }
        file = _file(self._directory, self._iterator, worker)
        partly = file.with_suffix(".part")
        partly.write_text(json.dumps(found), encoding="utf-8")
        os.replace(partly, file)


def read_report(directory: str, iterator: int, worker: int) -> Report | None:
    """The report of a worker, "seed" (one number) and a digest a generator; None without one."""
    try:
        found: Report = json.loads(_file(directory, iterator, worker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _file(directory: str, iterator: int, worker: int) -> Path:
    return Path(directory) / f"{iterator}_{worker}.json"
