from __future__ import annotations

from collections.abc import Iterator

import pytest

from nondet_probe.env import thread_count


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For workloads too small for two threads, which on a busy machine wait for each other."""
    with thread_count(1):
        yield
