"""Memory that a call takes for a while is seen, and what it returns is not counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nondet_probe.probe import memory
from nondet_probe.probe.memory import RESOLUTION, extra_bytes

MEGABYTES = 1 << 20

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="not Linux: there is no high-water mark"
)


@pytest.mark.parametrize("_", range(3))
def test_a_buffer_is_seen_every_time(_: int) -> None:
    def call() -> int:
        buffer = torch.ones(10 * MEGABYTES, dtype=torch.uint8)
        return (buffer[: 4 * MEGABYTES] + 1).nbytes

    found = extra_bytes(call)
    assert found is not None
    assert abs(found - 10 * MEGABYTES) <= RESOLUTION


def test_nothing_but_the_result_is_nothing() -> None:
    found = extra_bytes(lambda: torch.ones(8 * MEGABYTES, dtype=torch.uint8).nbytes)
    assert found is not None
    assert found <= RESOLUTION


def test_where_it_cannot_be_measured_it_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CLEAR", Path("/no/such/file"))
    assert extra_bytes(lambda: 0) is None
