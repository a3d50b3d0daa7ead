"""A writer that keeps what a sink gives it, for tests of the parts of a recorder."""

from __future__ import annotations

from pathlib import Path

from memory_trace import Memory

from nondet_probe.bits import DIGEST_FORMAT
from nondet_probe.records.trace import TraceMeta, TraceRecord


class FakeWriter(Memory):
    """A trace in memory with a meta block of its own."""

    def __init__(self, level: str = "op") -> None:
        meta = TraceMeta(level, True, None, "2026-01-01T00:00:00+00:00", {}, DIGEST_FORMAT)
        super().__init__(Path("nowhere"), meta)

    def named(self, kind: str) -> list[TraceRecord]:
        return self.of(kind=kind)
