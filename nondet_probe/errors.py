"""Every error this package raises on purpose, and the one way to say "no such name".

A message says what was given, what is allowed, the near match, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DifferenceError",
    "NondetProbeError",
    "RecordError",
    "RunFailedError",
    "UnknownNameError",
    "UsageError",
    "near_matches",
    "unknown_name",
]


class NondetProbeError(Exception):
    """Base of all errors of this package."""


class UsageError(NondetProbeError, ValueError):
    """The request itself cannot be carried out: the command line exits with 2."""


class UnknownNameError(UsageError, LookupError):
    """A name (op, variant, workload, parameter) that does not exist."""


class RecordError(NondetProbeError):
    """A run directory that cannot be read: truncated, of another format or version, or absent."""


class RunFailedError(NondetProbeError):
    """The user's training failed under the probe; what was recorded until then is in `partial`.

    `step` counts from 0; None means that the workload could not be built. `partial` is a record of
    `nondet_probe.records` or None.
    """

    def __init__(self, message: str, *, step: int | None, partial: object = None) -> None:
        super().__init__(message)
        self.step = step
        self.partial = partial


class DifferenceError(NondetProbeError):
    """A recording differs from the trace that it is compared with while it is made.

    `difference` is a `nondet_probe.records.difference.TraceDifference`: run a is that trace, run b
    the recording.
    """

    def __init__(self, message: str, difference: object) -> None:
        super().__init__(message)
        self.difference = difference


def near_matches(given: str, known: Iterable[str]) -> list[str]:
    """At most three of `known` that resemble `given`, best first."""
    return difflib.get_close_matches(given, list(known), n=3, cutoff=0.5)


def unknown_name(kind: str, given: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """The error for an unknown `kind`: near matches first, then all that is known (at most 30)."""
    names = sorted(known)
    near = near_matches(given, names)
    shown = ", ".join(names[:30]) + (f", and {len(names) - 30} more" if len(names) > 30 else "")
    text = f"unknown {kind} {given!r}"
    text += f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else "."
    text += f" Known: {shown or 'none'}."
    return UnknownNameError(f"{text} {hint}".rstrip())
