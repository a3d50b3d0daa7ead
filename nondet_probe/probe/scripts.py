"""Watch a user's script in a fresh process, which `python -m nondet_probe.probe.scripts` is.

The parent hands over what to do as JSON on the command line; the child writes what it found as JSON
to a file, before the script can end the process in a way of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nondet_probe.env.script import check_script
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.mode import MEMORY
from nondet_probe.probe.watch import Rerun, check_k
from nondet_probe.records import RerunRecord
from nondet_probe.records.codec import decode, encode

__all__ = ["rerun_script"]


def rerun_script(
    target: Sequence[str],
    *,
    module: bool = False,
    steps: int = 2,
    k: int | None = None,
    memory: int = MEMORY,
    threads: int | None = None,
) -> RerunRecord:
    """Run `python target...` and execute every op again until its optimizer has stepped `steps`
    times; then the script is stopped.

    target: a script, or with `module` a module's name, and its arguments. Everything from the
    script's first line on is watched, so the building of the model too. threads: set for torch
    before the script begins. The script runs once: nothing is run again under a fix.

    Raises UsageError, and RunFailedError, with the RerunRecord so far as its `partial`, when the
    script fails before that.
    """
    check_k(k)
    check_script(target, module=module)
    if steps < 1:
        raise UsageError(f"steps={steps}: at least 1 training step is needed")
    options = {"steps": steps, "k": k, "memory": memory, "threads": threads, "module": module}
    found = _in_fresh_process(options, target)
    record: RerunRecord = decode(RerunRecord, found["record"])
    if found["failure"] is not None:
        raise RunFailedError(found["failure"], step=record.steps, partial=record)
    return record


def _in_fresh_process(options: dict[str, Any], target: Sequence[str]) -> dict[str, Any]:
    """What the child wrote; RunFailedError where it ended before it could."""
    with tempfile.TemporaryDirectory(prefix="nondet-probe-") as folder:
        result = Path(folder) / "found.json"
        given = json.dumps({**options, "result": str(result)})
        process = subprocess.Popen([sys.executable, "-m", __name__, given, *target])
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # the child got it too, and writes down what it has
        if not result.exists():
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise RunFailedError(
                f"the script's process ended at once {how}, before anything could be written down",
                step=None,
            )
        found: dict[str, Any] = json.loads(result.read_bytes())
        return found


def _main() -> None:
    import torch

    from nondet_probe.probe.script_steps import run_steps

    options, target = json.loads(sys.argv[1]), sys.argv[2:]
    steps = options["steps"]
    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    watch = Rerun(options["k"], memory=options["memory"])
    with watch:
        ending = run_steps(target, module=options["module"], steps=steps)
    record = watch.found(fixes=ending.failure is None)
    record.of_script = True
    record.steps = ending.steps
    record.caveats += watch.mode_dependent()
    if ending.failure is None and ending.steps < steps:
        record.caveats.append(
            f"the script ended by itself after {ending.steps} of {steps} optimizer steps; all of "
            "it was watched"
        )
    result = Path(options["result"])
    beside = result.with_suffix(".part")
    beside.write_text(
        json.dumps({"failure": ending.failure, "record": encode(record)}), encoding="utf-8"
    )
    os.replace(beside, result)
    # A thread that waits for the script to go on would keep the process for ever.
    if any(not t.daemon and t is not threading.main_thread() for t in threading.enumerate()):
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    _main()
