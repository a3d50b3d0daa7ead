"""A writer that keeps what a sink gives it, for tests of the parts of a recorder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nondet_probe.bits import DIGEST_FORMAT
from nondet_probe.records.trace import Site, TraceMeta, TraceRecord, Words


class FakeWriter:
    """records: all that was added, in order; sketches: (step, shapes by name)."""

    def __init__(self, level: str = "op") -> None:
        self.meta = TraceMeta(level, True, None, "2026-01-01T00:00:00+00:00", {}, DIGEST_FORMAT)
        self.records: list[TraceRecord] = []
        self.sketches: list[tuple[int, dict[str, Sequence[int]]]] = []
        self._sites: list[Site] = []

    def site(self, site: Site) -> int:
        self._sites.append(site)
        return len(self._sites) - 1

    def add(
        self,
        step: int,
        site: int,
        inputs: Words | None,
        outputs: Words | None,
        value: float | None = None,
    ) -> int:
        number = len(self.records)
        self.records.append(TraceRecord(number, step, self._sites[site], inputs, outputs, value))
        return number

    def sketch(
        self, step: int, form: str, shapes: Mapping[str, Sequence[int]], buckets: bytes
    ) -> None:
        self.sketches.append((step, dict(shapes)))

    def flush(self) -> None:
        """Everything is there already."""

    def update(self) -> None:
        """So is the meta block."""

    def named(self, kind: str) -> list[TraceRecord]:
        return [record for record in self.records if record.site.kind == kind]
