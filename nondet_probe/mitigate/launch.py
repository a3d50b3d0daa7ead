"""Run a script, or a module, inside `reproducible`, in a process that MKL's strict mode is set for.

`relaunch` replaces the process by a Python that has MKL_CBWR, and where there is a GPU
CUBLAS_WORKSPACE_CONFIG, in its environment before anything is loaded, and calls this module as a
program:

    python -m nondet_probe.mitigate.launch <options as JSON> script.py arguments
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nondet_probe.env.script import check_script, run_script

__all__ = ["relaunch"]


def relaunch(
    target: Sequence[str], guarantee: str, *, module: bool, watch: bool, report: Path | None
) -> NoReturn:
    """Become `python target...` under `reproducible(guarantee, watch=watch)`.

    target: a script, or with `module` a module's name, and its arguments. The process leaves with
    the exit code of the target; its account goes to stderr, and as JSON to `report`.
    Raises UsageError where there is no such script.
    """
    from nondet_probe.mitigate.reproducible import reproducible
    from nondet_probe.mitigate.strict import VARIABLE, strict_setting
    from nondet_probe.mitigate.switches import WORKSPACE, WORKSPACE_SETTING, cuda_is_here

    reproducible(guarantee)  # an unknown guarantee is told now
    check_script(target, module=module)
    environment = dict(os.environ)
    setting = strict_setting()
    if setting is not None:
        # What the user has set stays: the report says if products still needed another way.
        environment.setdefault(VARIABLE, setting)
    if cuda_is_here():
        environment.setdefault(WORKSPACE, WORKSPACE_SETTING)
    options = {
        "guarantee": guarantee,
        "module": module,
        "watch": watch,
        "report": str(report.absolute()) if report is not None else None,
    }
    command = [sys.executable, "-m", __name__, json.dumps(options), *target]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)


def _main() -> None:
    options, target = json.loads(sys.argv[1]), sys.argv[2:]
    from nondet_probe.mitigate.reproducible import reproducible

    run = reproducible(options["guarantee"], watch=options["watch"])
    try:
        with run:
            run_script(target, module=options["module"])
    finally:
        sys.stdout.flush()
        account = run.report()
        print(account, file=sys.stderr)
        if options["report"] is not None:
            Path(options["report"]).write_text(json.dumps(account.as_dict()), encoding="utf-8")


if __name__ == "__main__":
    _main()
