"""Count executions and differences place by place, and keep the worst call of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from nondet_probe.probe.places import Place, source_text
from nondet_probe.probe.replay import Call, Difference
from nondet_probe.records import OpSite

__all__ = ["Site", "Tally"]

# What the operands of all kept calls may take together.
_KEPT_BYTES = 1 << 30


@dataclass
class Site:
    """One op at one place. worst: the call to try fixes on, or None with the reason in `lost`."""

    op: str
    place: Place
    calls: int = 0
    differing_calls: int = 0
    executions: int = 0
    differing: int = 0
    elements: int = 0
    different: int = 0
    max_ulp: int | None = None
    shapes: list[str] = field(default_factory=list)
    worst: Call | None = None
    lost: str = ""
    _rank: tuple[int, int] = (0, 0)

    def record(self) -> OpSite:
        return OpSite(
            op=self.op,
            phase=self.place.phase,
            module=self.place.module,
            file=self.place.file,
            line=self.place.line,
            code=source_text(self.place),
            calls=self.calls,
            differing_calls=self.differing_calls,
            executions=self.executions,
            differing=self.differing,
            elements=self.elements,
            different_elements=self.different,
            max_ulp=self.max_ulp,
            shapes=list(self.shapes),
        )

    def add(self, executions: int, found: list[Difference], call: Call, room: int) -> None:
        """One call, `executions` in all, of which those in `found` differed from the first."""
        self.calls += 1
        self.executions += executions
        if not found:
            return
        self.differing_calls += 1
        self.differing += len(found)
        worst = max(found, key=lambda one: one.different)
        ulps = [one.max_ulp for one in found if one.max_ulp is not None]
        if self.max_ulp is not None:
            ulps.append(self.max_ulp)
        self.max_ulp = max(ulps, default=None)
        rank = worst.different, len(found)
        if rank <= self._rank:
            return
        self._rank = rank
        self.elements, self.different = worst.elements, worst.different
        self.shapes = call.shapes
        self._keep(call, room + (self.worst.nbytes if self.worst is not None else 0))

    def _keep(self, call: Call, room: int) -> None:
        if call.nbytes <= room:
            self.worst = call.kept()
        elif self.worst is None:
            self.lost = f"the operands ({call.nbytes >> 20} MiB) are beyond the memory set aside"


class Tally:
    """All sites of a run, by op and place."""

    def __init__(self) -> None:
        self._sites: dict[tuple[str, Place], Site] = {}

    def add(self, place: Place, executions: int, found: list[Difference], call: Call) -> None:
        key = call.plan.name, place
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = Site(call.plan.name, place)
        site.add(executions, found, call, self._room() if found else 0)

    def _room(self) -> int:
        kept = (site.worst.nbytes for site in self._sites.values() if site.worst is not None)
        return _KEPT_BYTES - sum(kept)

    def ops(self) -> set[str]:
        """Names of all ops that were executed again."""
        return {op for op, _ in self._sites}

    def differing(self) -> list[Site]:
        """The places where something differed, worst first."""
        found = [site for site in self._sites.values() if site.differing]
        return sorted(found, key=lambda site: (-site.differing / site.executions, -site.different))
