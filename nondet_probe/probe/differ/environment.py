"""What two runs say of themselves, compared: switches before all."""

from __future__ import annotations

import shlex
from typing import Any

from nondet_probe.records.difference import Change
from nondet_probe.records.trace import TraceMeta

__all__ = ["changes", "decisive", "machines", "thread_counts"]

# Sections of an environment, in the order in which they are told. What differs in one of these can
# by itself make runs differ; another commit, or command, may, but often differs in runs that
# should be equal.
_DECISIVE = ("switches", "variables", "versions", "machine")
# More than any machine has: a trace may say anything.
_MOST_THREADS = 1024
# Sections whose names speak for themselves.
_PLAIN = {"switches", "variables", "environment"}


def changes(a: TraceMeta, b: TraceMeta) -> list[Change]:
    """Settings whose values differ, None where a run has none; switches first, the command last."""
    found = []
    others = sorted((a.environment.keys() | b.environment.keys()) - set(_DECISIVE))
    for section in (*_DECISIVE, *others):
        of_a, of_b = (_flat(section, meta.environment.get(section)) for meta in (a, b))
        # In the order of the first run; what only the second has, after it.
        found += [
            Change(name, of_a.get(name), of_b.get(name))
            for name in {**of_a, **of_b}
            if repr(of_a.get(name)) != repr(of_b.get(name))
        ]
    if a.command != b.command:
        found.append(Change("command", _typed(a.command), _typed(b.command)))
    return found


def decisive(a: TraceMeta, b: TraceMeta) -> bool:
    """Whether something differs that alone can make the runs differ."""
    return any(
        repr(_flat(section, a.environment.get(section)))
        != repr(_flat(section, b.environment.get(section)))
        for section in _DECISIVE
    )


def machines(a: TraceMeta, b: TraceMeta) -> str | None:
    """A warning that shows both machines, where they are not the same."""
    of_a, of_b = (_flat("", meta.environment.get("machine")) for meta in (a, b))
    if repr(of_a) == repr(of_b):
        return None
    shown = [", ".join(f"{name} {value}" for name, value in of.items()) for of in (of_a, of_b)]
    return (
        f"the runs were recorded on different machines: run a on {shown[0] or 'an unknown one'}; "
        f"run b on {shown[1] or 'an unknown one'}"
    )


def thread_counts(*runs: TraceMeta | None) -> list[int]:
    """torch's number of threads as each of these began; none of one that does not say."""
    counts = []
    for meta in runs:
        switches = meta.environment.get("switches") if meta is not None else None
        count = switches.get("torch.get_num_threads") if isinstance(switches, dict) else None
        if type(count) is int and 0 < count <= _MOST_THREADS:
            counts.append(count)
    return counts


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    """Names with dots -> values that are no mappings."""
    if not isinstance(value, dict):
        return {} if value is None else {prefix: value}
    found: dict[str, Any] = {}
    start = "" if prefix in _PLAIN or not prefix else f"{prefix}."
    for name, item in value.items():
        found.update(_flat(name if name in _PLAIN else f"{start}{name}", item))
    return found


def _typed(command: list[str] | None) -> str | None:
    return None if command is None else shlex.join(command)
