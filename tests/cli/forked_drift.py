"""Run `nondet-probe record` and `drift`, each in a process of its own in which torch is imported.

    python forked_drift.py '[["name", ["record", ...]], ...]'

Importing torch takes longer than these trainings do. As forked_records.py; and the twins that
`drift` runs are children made by fork too. The twin that STOP names is interrupted at its start.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn

import scipy.stats
import sklearn.datasets
import torch

import nondet_probe.cli.one_bit
import nondet_probe.cli.record
import nondet_probe.cli.twins
import nondet_probe.probe.recorder.recording

# The first optimizer of a process imports much more of torch.
OPTIMIZER = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
IMPORTED = (scipy.stats, sklearn.datasets, torch, nondet_probe.cli.one_bit, OPTIMIZER)


def become(executable: str, command: Sequence[str]) -> NoReturn:
    assert (executable, command[1]) == (sys.executable, "-m")
    sys.argv = [*command[2:]]
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    raise SystemExit(0)


def in_child(log: int, command: Sequence[str]) -> int:
    """The exit code of a child that becomes this."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.execv = become
    code = 0
    try:
        become(command[0], command)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def finished(command: Sequence[str], log: int, environment: Mapping[str, str]) -> int:
    if os.environ.get("STOP", "none") in command[3]:
        raise KeyboardInterrupt
    return in_child(log, command)


def main() -> None:
    nondet_probe.cli.twins.finished = finished
    codes = {}
    for name, words in json.loads(sys.argv[1]):
        os.environ["STOP"] = "twin-1" if name == "interrupted" else "none"
        log = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        codes[name] = in_child(log, [sys.executable, "-m", "nondet_probe", *words])
        os.close(log)
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
