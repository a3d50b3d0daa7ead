"""What a run under `reproducible` did, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Account"]


@dataclass
class Account:
    """Calls by overload, `... on cuda` of those on a GPU. Made of others only, or without a kernel
    for dense tensors there, an overload does not show; those it is made of do.

    guarantee: what was asked for.
    rerouted: overload to {how: calls}.
    weaker: those overloads, rerouted or not, whose calls have a weaker guarantee than was asked
        for, with the one they have.
    unknown: ran untouched, and no measurement says that their bits do not depend on the threads.
    untouched: ran untouched and were measured not to depend on them; only with `watch`.
    left: on a GPU: torch's own kernels that may add numbers up, of which it is not known that two
        runs differ; only where more than run_to_run was asked for, or with `watch`.
    breaking: ran untouched on a GPU and are known to break run_to_run; reasons: why.
    notes: what else the guarantee does not reach.
    """

    guarantee: str
    rerouted: dict[str, dict[str, int]] = field(default_factory=dict)
    weaker: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    untouched: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    breaking: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing that ran is known, or not known, to break the guarantee."""
        return not (self.weaker or self.unknown or self.breaking or self.notes)

    def as_dict(self) -> dict[str, Any]:
        """The fields and `holds`, ready for JSON."""
        return {**asdict(self), "holds": self.holds}

    def __str__(self) -> str:
        calls = sum(sum(ways.values()) for ways in self.rerouted.values())
        lines = [f"reproducible, {self.guarantee}: {_calls(calls)} rerouted"]
        ways = {
            f"{name}, {how}": n for name, row in self.rerouted.items() for how, n in row.items()
        }
        lines += _listed("", ways)
        if self.weaker:
            lines.append(f"weaker than {self.guarantee}:")
            lines += [f"  {name}: {has}" for name, has in sorted(self.weaker.items())]
        broken = {f"{name}: {self.reasons[name]}": n for name, n in self.breaking.items()}
        lines += _listed("untouched, known to differ between runs:", broken)
        lines += _listed("untouched, not measured, nothing promised:", self.unknown)
        lines += _listed("untouched, measured not to depend on the threads:", self.untouched)
        lines += _listed("left to torch's kernels, run_to_run as far as is known:", self.left)
        lines += [f"note: {note}" for note in self.notes]
        if self.holds:
            lines.append("nothing ran that is known to break the guarantee, or not measured")
        return "\n".join(lines)


def _listed(title: str, counts: dict[str, int]) -> Iterable[str]:
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"  {n:>8}  {name}" for name, n in ordered]
    return [title, *lines] if title else lines


def _calls(number: int) -> str:
    return f"{number} call" if number == 1 else f"{number} calls"
