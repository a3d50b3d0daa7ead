"""A trace that stays in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nondet_probe.records.trace import Site, TraceMeta, TraceRecord, Words


class Memory:
    """The records of one run, without a file. sketches: (step, shapes by name)."""

    def __init__(self, directory: Path, meta: TraceMeta) -> None:
        self.meta = meta
        self.records: list[TraceRecord] = []
        self.sketches: list[tuple[int, dict[str, Sequence[int]]]] = []
        self._sites: list[Site] = []
        self.flushed = 0
        self.closed = False

    def site(self, site: Site) -> int:
        if site not in self._sites:
            self._sites.append(site)
        return self._sites.index(site)

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
        self.flushed = len(self.records)

    def update(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def of(self, **parts: Any) -> list[TraceRecord]:
        """Records whose site, or step, has these parts."""
        return [
            record
            for record in self.records
            if all(
                (record.step if key == "step" else getattr(record.site, key)) == value
                for key, value in parts.items()
            )
        ]


Recorded = Callable[..., Memory]
