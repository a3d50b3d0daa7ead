from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_trace import Memory, Recorded

import nondet_probe as ndp
from nondet_probe.env import thread_count
from nondet_probe.probe.recorder import recording
from nondet_probe.records.trace import TraceMeta


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For trainings so small that two threads only wait for each other."""
    with thread_count(1):
        yield


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Recorded:
    """recorded(run, **arguments of record): run is called with the recording."""
    written: list[Memory] = []

    def writer(directory: Path, meta: TraceMeta) -> Memory:
        written.append(Memory(directory, meta))
        return written[-1]

    monkeypatch.setattr(recording, "TraceWriter", writer)
    monkeypatch.setattr(recording, "snapshot", dict)

    def of(run: Callable[[Any], object], **arguments: Any) -> Memory:
        with ndp.record("nowhere", **arguments) as rec:
            run(rec)
        assert written[-1].closed
        return written[-1]

    return of
