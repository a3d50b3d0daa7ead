"""One row for each class of op calls: is it repeatable, and what else do its bits depend on?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from nondet_probe.env.world import available_cpus
from nondet_probe.probe.declared import declared
from nondet_probe.probe.fixes import SWITCHES, under_fix
from nondet_probe.probe.replay import Call
from nondet_probe.probe.suspects import shape_class
from nondet_probe.probe.sweeps import (
    changes_with_batch,
    changes_with_threads,
    reads_unwritten,
    settles,
)
from nondet_probe.records.audit import OpStatus

__all__ = ["Census", "Switches", "thread_counts"]

Switches = Mapping[str, Callable[[], AbstractContextManager[object]]]


def thread_counts() -> list[int]:
    """1, 2, and as many as this process has: of processors, or set for torch."""
    return sorted({1, 2, available_cpus(), torch.get_num_threads()})


class Census:
    """Rows by class. switches: further ones to try, beside deterministic mode and one thread, on
    what is not repeatable or changes with the threads: name, and a function that makes a context.

    The first call of each class is asked everything, so a class costs some ten executions once.
    """

    def __init__(self, counts: Sequence[int], switches: Switches | None = None) -> None:
        self._counts = list(counts)
        self._rows: dict[tuple[str, str], OpStatus] = {}
        self._switches: dict[str, Callable[[], AbstractContextManager[object]]] = {
            name: partial(under_fix, name) for name in SWITCHES
        }
        self._switches.update(switches or {})

    def add(self, call: Call, first: list[Any], executions: int, differing: int) -> None:
        """One call, of whose executions `differing` gave other bits than `first`. Moves the streams
        that the op draws from."""
        key = call.plan.name, shape_class(call)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._new(call, *key)
            self._ask(row, call, first, repeatable=not differing)
        row.calls += 1
        row.executions += executions
        row.differing += differing
        if differing and row.switch is None:
            row.switch = self._switch(call, list(self._switches))

    def _new(self, call: Call, op: str, shapes: str) -> OpStatus:
        tensors = call.operands
        floats = [x for x in tensors if x.is_floating_point() or x.is_complex()] or tensors
        dtype = str(floats[0].dtype).removeprefix("torch.") if floats else "none"
        device = tensors[0].device.type if tensors else "cpu"
        return OpStatus(
            op, shapes, dtype, device, declared=declared(call.op, call.args, call.kwargs)
        )

    def _ask(self, row: OpStatus, call: Call, first: list[Any], *, repeatable: bool) -> None:
        try:
            row.unwritten = reads_unwritten(call)
            if not repeatable:
                return
            if row.device == "cpu":
                row.other_threads = changes_with_threads(call, first, self._counts)
                if row.other_threads:
                    # One thread alone would be no answer: it changes the bits, as any count does.
                    others = [name for name in self._switches if name != "one thread"]
                    row.switch = self._switch(call, others)
            row.with_batch = changes_with_batch(call)
        except Exception as error:
            lines = str(error).splitlines() or [""]
            row.error = f"{type(error).__name__}: {lines[0]}"

    def _switch(self, call: Call, names: list[str]) -> str | None:
        """The first switch that is seen to make the call repeatable, at every count but under "one
        thread"."""
        for name in names:
            counts = self._counts if name != "one thread" else []
            if settles(call, self._switches[name], counts):
                return name
        return None

    def rows(self) -> list[OpStatus]:
        """What differs first, then what changes with the threads, then by name."""
        return sorted(
            self._rows.values(),
            key=lambda row: (row.repeatable, not row.other_threads, row.op, row.shapes),
        )
