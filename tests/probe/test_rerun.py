"""The driver: real and planted nondeterminism found and fixed, clean workloads left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import offences
import pytest
import torch
from offences import line_of
from rerun_workloads import CLEAN
from torch import nn

from nondet_probe.env import thread_count
from nondet_probe.env.rng import RngState
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.rerun import rerun
from nondet_probe.records import RerunRecord
from nondet_probe.workload import Workload


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", CLEAN)
def test_clean_workloads_are_clean_and_end_with_the_same_bits(name: str) -> None:
    record = rerun(CLEAN[name], steps=2, k=3)
    assert record.sites == []
    assert record.neutral is True
    assert record.coverage.not_covered == {}
    assert record.coverage.rerun > 0
    assert record.verified_fix is None
    assert len(record.losses) == record.steps == 2
    assert record.probe_seconds > 0
    assert record.plain_seconds > 0
    assert [c for c in record.caveats if not c.startswith("with one thread")] == []


def linear(
    loss: Callable[[nn.Module, Any], torch.Tensor], batches: Any = None
) -> Callable[[int], Workload]:
    def factory(seed: int) -> Workload:
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Workload(model, optimizer, batches or [torch.ones(2, 4)] * 5, loss)

    return factory


@pytest.mark.usefixtures("one_thread")
def test_a_planted_op_makes_a_clean_workload_nondeterministic() -> None:
    """The same net as a clean one; so the checks above would have seen it."""

    def factory(seed: int) -> Workload:
        workload = CLEAN["cnn"](seed)
        plain = workload.loss
        workload.loss = lambda m, b: offences.wobble(plain(m, b))
        return workload

    record = rerun(factory, steps=2, k=3)
    (site,) = record.sites
    assert site.op == "ndp_test.wobble.default"
    assert record.neutral is None
    assert record.verified_fix is None


class Lookup(nn.Module):
    """From about two million elements on, two threads add gradients of `table[rows]` in any order.

    Each lookup of a row gets another gradient; with equal ones the order would not show.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(16384, 64))

    def forward(self, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        grams = self.table[rows]  # planted: the lookup
        return (grams * weights[..., None]).sum(1)


def lookup(seed: int) -> Workload:
    model = Lookup()
    batch = torch.randint(0, 16384, (64, 1024)), torch.rand(64, 1024)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Workload(model, optimizer, [batch] * 2, lambda m, b: m(*b).square().mean())


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a race between two threads needs two processors"
)
def test_real_nondeterminism_is_named_by_its_line_and_its_fix_verified() -> None:
    told: list[tuple[str, int, int]] = []
    with thread_count(2):
        record = rerun(lookup, steps=2, k=5, progress=lambda *what: told.append(what))
    (site,) = record.sites
    assert site.op == "aten.index_put.default"
    assert (site.phase, site.module) == ("backward", "")
    assert (site.file, site.line) == (__file__, line_of("# planted: the lookup", __file__))
    assert site.code == "grams = self.table[rows]  # planted: the lookup"
    assert (site.calls, site.executions) == (2, 10)
    assert 1 <= site.differing_calls <= 2
    assert 1 <= site.differing <= 8
    assert (site.elements, site.max_ulp is not None) == (16384 * 64, True)
    assert "float32[64, 1024, 64]" in site.shapes
    fixes = {fix.name: fix for fix in site.fixes}
    for name in ("deterministic mode", "one thread", "index_add_"):
        assert fixes[name].verified, fixes[name]
        assert fixes[name].executions >= 10
    assert record.verified_fix == "deterministic mode"
    assert record.neutral is None
    assert record.threads == 2
    assert ("plain runs", 2, 2) in told
    assert ("steps", 2, 2) in told
    assert ("fixes", 1, 1) in told
    assert ("steps under deterministic mode", 2, 2) in told


def test_the_same_lookup_on_one_thread_is_clean_and_says_what_that_is_worth() -> None:
    with thread_count(1):
        record = rerun(lookup, steps=1, k=2)
    assert record.sites == []
    assert any(caveat.startswith("with one thread races") for caveat in record.caveats)


def by_deterministic_mode(model: nn.Module, batch: Any) -> torch.Tensor:
    y = model(batch).sum()
    return y if torch.are_deterministic_algorithms_enabled() else offences.wobble(y)


def by_one_thread(model: nn.Module, batch: Any) -> torch.Tensor:
    """Deterministic mode cannot run it at all."""
    y = model(batch).sum()
    if torch.are_deterministic_algorithms_enabled():
        raise RuntimeError("no deterministic implementation")
    return y if torch.get_num_threads() == 1 else offences.wobble(y)


def without_fixes_of_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that only whole steps decide."""
    monkeypatch.setattr("nondet_probe.probe.watch.fixes_of", lambda *_: [])


def test_whole_steps_decide_which_switch_is_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    without_fixes_of_the_op(monkeypatch)
    with thread_count(2):
        record = rerun(linear(by_deterministic_mode), steps=1, k=2)
        assert record.verified_fix == "deterministic mode"
        record = rerun(linear(by_one_thread), steps=1, k=2)
    assert record.verified_fix == "one thread"
    assert record.caveats == [
        "under deterministic mode the steps cannot be run: step 0 failed: RuntimeError: no "
        "deterministic implementation"
    ]


def test_a_switch_that_did_not_help_the_op_is_not_tried_on_steps() -> None:
    told: list[str] = []
    with thread_count(2):
        record = rerun(
            linear(by_deterministic_mode), steps=1, k=2, progress=lambda what, *_: told.append(what)
        )
    assert [fix.verified for fix in record.sites[0].fixes] == [False, False]
    assert record.verified_fix is None
    assert not any(what.startswith("steps under") for what in told)


def other_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return model(batch).sum() * (2 if torch._C._len_torch_dispatch_stack() else 1)


def other_gradient(model: nn.Module, batch: Any) -> torch.Tensor:
    y = model(batch).sum()
    return y + (y - y.detach() if torch._C._len_torch_dispatch_stack() else 0)


def other_draws(model: nn.Module, batch: Any) -> torch.Tensor:
    if torch._C._len_torch_dispatch_stack():
        torch.rand(1)
    return model(batch).sum()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("loss", "what"),
    [(other_loss, "losses"), (other_gradient, "weight"), (other_draws, "random streams")],
)
def test_a_probe_that_disturbs_would_be_told(loss: Any, what: str) -> None:
    """A loss that looks whether it is watched: so would a probe look that is not neutral."""
    record = rerun(linear(loss), steps=1, k=2)
    assert record.sites == []
    assert record.neutral is False
    (caveat,) = [c for c in record.caveats if "ended with other bits than without it" in c]
    assert what in caveat


@pytest.mark.usefixtures("one_thread")
def test_nondeterminism_outside_of_the_ops_is_told() -> None:
    import itertools

    count = itertools.count()

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(batch).sum() * (1 + next(count))

    record = rerun(linear(loss), steps=1, k=2)
    assert record.sites == []
    assert record.neutral is None
    assert any("two plain runs ended with different bits" in caveat for caveat in record.caveats)


@pytest.mark.usefixtures("one_thread")
def test_a_dispatch_mode_that_changes_the_formula_is_explained() -> None:
    """torch itself does this under any mode, for the gradient of a product."""

    def factory(seed: int) -> Workload:
        model = nn.Linear(5, 25)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Workload(
            model, optimizer, [torch.randn(5, 5)] * 2, lambda m, b: m(b).view(5, 5, 5).prod(1).sum()
        )

    record = rerun(factory, steps=2, k=2)
    assert record.sites == []
    explained = [c for c in record.caveats if c.startswith("aten.prod.dim_int: while")]
    assert bool(explained) is (record.neutral is False)


@pytest.mark.usefixtures("one_thread")
def test_the_streams_of_the_process_are_left_alone() -> None:
    state = RngState.capture()
    rerun(CLEAN["cnn"], seed=7, steps=1, k=2)
    assert state.same_as(RngState.capture())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"k": 1}, "k=1: at least 2"), ({"steps": 0}, "steps=0: at least 1")],
)
def test_bad_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rerun(CLEAN["cnn"], **arguments)


def failing(batch: int, error: Exception) -> Callable[[nn.Module, Any], torch.Tensor]:
    def loss(model: nn.Module, given: Any) -> torch.Tensor:
        y = offences.wobble(model(given)).sum()
        if float(given[0, 0]) == batch:
            raise error
        return y

    return loss


COUNTED = [torch.full((2, 4), float(n)) for n in range(3)]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("factory", "steps", "message"),
    [
        (linear(failing(2, KeyError("oh")), COUNTED), 3, "step 2 failed: KeyError: 'oh'"),
        (linear(failing(9, KeyError()), COUNTED[:2]), 3, "batches ran out at step 2"),
        (
            linear(
                lambda m, b: offences.wobble(
                    m(b).sum() * (torch.nan if float(b[0, 0]) == 2 else 1)
                ),
                COUNTED,
            ),
            3,
            "the loss is nan at step 2",
        ),
    ],
    ids=["raises", "batches", "nan"],
)
def test_a_failing_workload_leaves_the_record_so_far(
    factory: Callable[[int], Workload], steps: int, message: str
) -> None:
    with pytest.raises(RunFailedError, match=message) as caught:
        rerun(factory, steps=steps, k=3)
    assert caught.value.step == 2
    record = caught.value.partial
    assert isinstance(record, RerunRecord)
    assert (record.steps, len(record.losses)) == (2, 2)
    (site,) = record.sites
    assert site.differing_calls >= 2
    assert site.fixes == []


@pytest.mark.usefixtures("one_thread")
def test_a_workload_that_fails_only_under_the_probe() -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("watched")
        return model(batch).sum()

    with pytest.raises(RunFailedError, match="watched") as caught:
        rerun(linear(loss), steps=2, k=2)
    assert isinstance(caught.value.partial, RerunRecord)
    assert caught.value.partial.steps == 0


def test_a_workload_that_cannot_be_built() -> None:
    def factory(seed: int) -> Workload:
        raise OSError("no data")

    with pytest.raises(RunFailedError, match="no data") as caught:
        rerun(factory)
    assert caught.value.step is None
