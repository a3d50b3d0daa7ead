"""What a command looks at: a workload by its name, or a training script with its arguments."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nondet_probe.env.script import check_script
from nondet_probe.errors import UsageError
from nondet_probe.workloads.targets import BUILTIN

__all__ = ["Subject", "subject_of"]


@dataclass(frozen=True)
class Subject:
    """words: the target, or the script and its arguments; module: the script is a module's name."""

    words: tuple[str, ...]
    is_script: bool
    module: bool = False

    @property
    def name(self) -> str:
        return ("-m " if self.module else "") + shlex.join(self.words)


def subject_of(words: Sequence[str], *, module: bool, seeded: bool) -> Subject:
    """A script where `module` says so, there are arguments, or the word is a Python file without a
    function; else a workload.

    seeded: a seed was asked for, which a script does not take. Raises UsageError for that, and for
    a script that is not there.
    """
    first = words[0]
    script = module or len(words) > 1 or first.endswith(".py") or Path(first).is_file()
    if not script or (len(words) == 1 and first in BUILTIN and not module):
        return Subject(tuple(words), is_script=False)
    if ":" in first and not Path(first).exists() and not module:
        raise UsageError(
            f"{shlex.join(words)}: a workload takes no arguments; options of nondet-probe go "
            "before --, and a script is named without a function"
        )
    check_script(words, module=module)
    if seeded:
        raise UsageError("--seed is for workloads: a script seeds its own random streams")
    return Subject(tuple(words), is_script=True, module=module)
