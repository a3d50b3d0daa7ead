"""Run `nondet-probe record` many times, each in a process of its own in which torch is imported.

    python forked_records.py '[["name", "options", ["script.py", "arguments"]], ...]'

Importing torch and transformers takes longer than these trainings do. Each command runs in a child
made by fork, up to and through the program that it becomes; what it prints goes to `name.log`, and
its exit code is printed here.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from typing import NoReturn

import sklearn.datasets
import sklearn.neighbors
import torch.utils.data
import transformers

IMPORTED = (sklearn.datasets, sklearn.neighbors, torch.utils.data, transformers.GPT2LMHeadModel)


def become(executable: str, command: list[str]) -> None:
    """What os.execv does with `python -m module arguments`, without a new interpreter."""
    assert (executable, command[1]) == (sys.executable, "-m")
    sys.argv = command[2:]
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)


def in_child(name: str, options: list[str], target: list[str]) -> NoReturn:
    log = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["nondet-probe", "record", *options, "-o", name, "--", *target]
    os.execv = become
    code = 0
    try:
        from nondet_probe.cli import main

        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    codes = {}
    for name, options, target in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            in_child(name, options, target)
        codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
