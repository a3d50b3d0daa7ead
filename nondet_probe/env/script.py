"""Run a user's script, or module, as Python itself would run it, in this process."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from nondet_probe.errors import UsageError, near_matches

__all__ = ["check_script", "run_script"]


def check_script(target: Sequence[str], *, module: bool) -> None:
    """UsageError unless `target` names a script (or, with `module`, anything) that could be run."""
    if not target:
        raise UsageError("no script was given: nondet-probe COMMAND -- script.py [arguments]")
    script = Path(target[0])
    if not module and not script.is_file():
        near = near_matches(script.name, [file.name for file in script.parent.glob("*.py")])
        named = " or ".join(str(script.parent / name) for name in near)
        raise UsageError(f"no such script: {script}{f'; did you mean {named}?' if near else ''}")


def run_script(target: Sequence[str], *, module: bool) -> None:
    """`python target...`, or with `module` `python -m target...`: argv, path and `__main__` are the
    script's own from now on. What it raises, SystemExit included, passes."""
    sys.argv = list(target)
    # Where `python script.py` and `python -m module` would look first.
    sys.path[0] = os.getcwd() if module else str(Path(target[0]).resolve().parent)
    if module:
        runpy.run_module(target[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(target[0], run_name="__main__")
