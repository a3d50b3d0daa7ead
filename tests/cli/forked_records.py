"""Run `nondet-probe` many times, each in a process of its own in which torch is imported.

    python forked_records.py '[["name", ["record", "-o", "name", "--", "script.py"]], ...]'

Importing torch and transformers takes longer than these trainings do. Each command runs in a child
made by fork, up to and through the program that it becomes, and so do the Pythons that it starts;
what it prints goes to `name.out` and `name.log`, and its exit code is printed here.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

# Threads that spin while they wait would only be in each other's way. torch looks at it once; what
# is recorded does not hold it.
os.environ["OMP_WAIT_POLICY"] = "passive"

import sklearn.datasets
import sklearn.neighbors
import torch.utils.data
import transformers

import nondet_probe.cli.app
import nondet_probe.cli.bisect
import nondet_probe.cli.measure
import nondet_probe.cli.record
import nondet_probe.mitigate.reproducible
import nondet_probe.probe.optimes
import nondet_probe.probe.recorder.recording
import nondet_probe.report.html

del os.environ["OMP_WAIT_POLICY"]

IMPORTED = (
    sklearn.datasets,
    sklearn.neighbors,
    torch.utils.data,
    transformers.GPT2LMHeadModel,
    nondet_probe.cli.app,
    nondet_probe.cli.bisect,
    nondet_probe.cli.measure,
    nondet_probe.cli.record,
    nondet_probe.mitigate.reproducible,
    nondet_probe.probe.optimes,
    nondet_probe.probe.recorder.recording,
    nondet_probe.report.html,
)

# What runs a script for a command.
SCRIPTS = (
    "nondet_probe.probe.recorder.script",
    "nondet_probe.cli.scripts",
    "nondet_probe.cli.script_cost",
)
POPEN = subprocess.Popen


def become(executable: str, command: Sequence[str]) -> NoReturn:
    """What os.execv does with `python -m module arguments`, without a new interpreter. It does not
    come back either."""
    assert (executable, command[1]) == (sys.executable, "-m")
    sys.argv = list(command[2:])
    sys.modules.pop(command[2], None)  # it is run, not imported
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    raise SystemExit(0)


class Forked:
    """What subprocess.Popen does with `python -m module arguments`, as far as it is asked to here:
    another stdout and stderr, and variables."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: int | None = None,
        stderr: int | None = None,
        env: Mapping[str, str] | None = None,
        **_: Any,
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        for descriptor, given in ((1, stdout), (2, stderr)):
            if given == subprocess.DEVNULL:
                given = os.open(os.devnull, os.O_WRONLY)
            if given == subprocess.STDOUT:
                given = 1
            if given is not None:
                os.dup2(given, descriptor)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        leave_with(lambda: become(command[0], command))

    def wait(self) -> int:
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def popen(command: Sequence[str], **options: Any) -> Any:
    """For all others subprocess.Popen itself."""
    ours = command[:2] == [sys.executable, "-m"] and command[2] in SCRIPTS
    return Forked(command, **options) if ours else POPEN(command, **options)


def leave_with(body: Callable[[], Any]) -> NoReturn:
    """Call it; the process ends with its exit code."""
    code = 0
    try:
        body()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def in_child(name: str, words: list[str]) -> NoReturn:
    for descriptor, kind in ((1, "out"), (2, "log")):
        os.dup2(os.open(f"{name}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_EXCL), descriptor)
    sys.argv = ["nondet-probe", *words]
    os.execv = become
    subprocess.Popen = popen
    leave_with(nondet_probe.cli.main)


def main() -> None:
    codes = {}
    for name, words in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            in_child(name, words)
        codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
