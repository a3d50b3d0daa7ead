from __future__ import annotations

import json
from dataclasses import asdict

import offences
import pytest
import torch

from nondet_probe.env import thread_count
from nondet_probe.env.switches import deterministic_algorithms
from nondet_probe.errors import UsageError
from nondet_probe.probe.rerun import Rerun


@pytest.mark.parametrize("k", [1, 0, -3, 2.0, "5", True])
def test_too_few_executions(k: object) -> None:
    with pytest.raises(UsageError, match="at least 2 executions"):
        Rerun(k=k)  # type: ignore[arg-type]


def test_entering_again_adds_up() -> None:
    watch = Rerun(2)
    for _ in range(3):
        with watch:
            offences.wobble(torch.ones(2))
    torch.ones(3)
    record = watch.record()
    assert (record.steps, record.coverage.seen, record.sites[0].calls) == (3, 6, 3)
    assert record.probe_seconds > 0
    assert record.neutral is None
    assert record.verified_fix is None
    json.dumps(asdict(record))


def test_entering_inside_itself() -> None:
    watch = Rerun(2)
    with watch, pytest.raises(UsageError, match="already watching"):
        watch.__enter__()
    with watch:
        torch.ones(1)
    assert watch.record().coverage.seen == 1


def test_recording_inside_of_the_block() -> None:
    with Rerun(2) as watch, pytest.raises(UsageError, match="after the `with` block"):
        watch.record()


def test_an_exception_passes_and_what_was_found_stays() -> None:
    def body() -> None:
        offences.wobble(torch.ones(2))
        _ = 1 / 0

    watch = Rerun(2)
    with pytest.raises(ZeroDivisionError), watch:
        body()
    seen = watch.record().coverage.seen
    torch.ones(3)
    assert watch.record().coverage.seen == seen
    assert len(watch.record().sites) == 1


def test_the_record_is_made_once() -> None:
    with Rerun(2) as watch:
        torch.ones(1)
    record = watch.record()
    assert watch.record() is record
    with watch:
        torch.ones(1)
    assert watch.record().coverage.seen == 2


def test_one_thread_is_a_caveat() -> None:
    with thread_count(1), Rerun(2) as watch:
        torch.ones(1)
    assert any(c.startswith("with one thread races") for c in watch.record().caveats)
    with thread_count(2), Rerun(2) as watch:
        torch.ones(1)
    record = watch.record()
    assert record.threads == 2
    assert not any("with one thread" in caveat for caveat in record.caveats)


def test_fewer_processors_than_threads_is_a_caveat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    with thread_count(2), Rerun(2) as watch:
        torch.ones(1)
    assert watch.record().caveats[0].startswith("2 threads share 1 processor of")


def test_deterministic_mode_is_a_caveat() -> None:
    with deterministic_algorithms(True), Rerun(2) as watch:
        torch.ones(1)
    assert any("use_deterministic_algorithms was on" in c for c in watch.record().caveats)


def test_ops_whose_bits_depend_on_any_dispatch_mode_are_a_caveat() -> None:
    """Not of our making, and not seen by comparing executions: they all have the same bits."""
    x = torch.rand(5, 5, 5, requires_grad=True)
    with Rerun(2) as watch:
        x.prod(1).sum()
    assert any(c.startswith("aten.prod.dim_int: while") for c in watch.record().caveats)
