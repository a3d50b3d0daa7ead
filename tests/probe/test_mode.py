"""Every op is executed again on equal inputs; training is not touched by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import offences
import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from nondet_probe.bits import bit_equal
from nondet_probe.env.rng import RngState, seed_all
from nondet_probe.env.torch_private import TorchDispatchMode
from nondet_probe.probe.mode import RerunMode
from nondet_probe.probe.rerun import Rerun
from nondet_probe.records import OpSite, RerunRecord


def watched(run: Callable[[], object], k: int = 3) -> RerunRecord:
    with Rerun(k) as watch:
        run()
    return watch.record()


def only(record: RerunRecord) -> OpSite:
    (site,) = record.sites
    return site


def test_a_planted_op_in_the_forward_pass_is_found() -> None:
    site = only(watched(lambda: offences.wobble(torch.ones(2, 4)), k=5))
    assert site.op == "ndp_test.wobble.default"
    assert (site.calls, site.differing_calls) == (1, 1)
    assert (site.executions, site.differing) == (5, 4)
    assert (site.elements, site.different_elements, site.max_ulp) == (8, 1, 4)
    assert site.shapes == ["float32[2, 4]"]


@pytest.mark.parametrize("layout", ["dense", "transposed", "gaps", "expanded from outside"])
def test_a_planted_op_in_place_is_found_and_its_operand_written_once(layout: str) -> None:
    x = {
        "dense": torch.ones(4, 4),
        "transposed": torch.ones(4, 4).t(),
        "gaps": torch.ones(8, 8)[::2, ::2],
        "expanded from outside": torch.ones(32)[7:23].view(4, 4),
    }[layout]
    before = next(offences._calls)
    site = only(watched(lambda: offences.wobble_(x), k=3))
    assert site.op == "ndp_test.wobble_.default"
    assert (site.differing, site.different_elements) == (2, 1)
    moved = x.contiguous().view(torch.int32).view(-1)
    assert int(moved[0]) - int(torch.ones(1).view(torch.int32)) == before + 1
    assert torch.equal(x.reshape(-1)[1:], torch.ones(15))


def test_a_planted_op_in_the_backward_of_a_function_is_found() -> None:
    x = torch.ones(4, requires_grad=True)
    site = only(watched(lambda: offences.WobblyBackward.apply(x).sum().backward()))
    assert (site.op, site.phase) == ("ndp_test.wobble.default", "backward")
    assert site.line == offences.line_of("# the planted line", offences.__file__)


def test_calls_at_one_place_are_added_up() -> None:
    def run() -> None:
        for size in (4, 9, 2):
            offences.wobble(torch.ones(size))

    site = only(watched(run, k=2))
    assert (site.calls, site.differing_calls, site.executions, site.differing) == (3, 3, 6, 3)


@pytest.mark.parametrize(
    "run",
    [
        lambda: torch.ones(3).mul_(torch.nan),
        lambda: torch.log(torch.tensor([-1.0, 0.0, -0.0])),
        lambda: torch.tensor([torch.nan, 1.0]).sum().item(),
        lambda: torch.tensor([1.0, torch.nan]).exp_().max(),
        lambda: torch.zeros(2).div(0).bfloat16(),
    ],
)
def test_nan_is_equal_to_itself(run: Callable[[], object]) -> None:
    record = watched(run)
    assert record.sites == []
    assert record.coverage.rerun > 0


def test_the_original_draws_what_it_would_draw_alone() -> None:
    def run() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.ones(64)
        return [
            nn.functional.dropout(x, 0.5),
            torch.rand(5),
            torch.randn(5, generator=generator),
            torch.zeros(5).uniform_(generator=generator),
            torch.randperm(9),
            torch.multinomial(x, 3),
            generator.get_state(),
        ]

    seed_all(3)
    alone = run()
    end = RngState.capture()
    seed_all(3)
    found: list[torch.Tensor] = []
    record = watched(lambda: found.extend(run()))
    assert end.same_as(RngState.capture())
    assert all(map(bit_equal, alone, found))
    assert record.sites == []


def test_foreign_ops_may_draw_from_any_stream() -> None:
    import random

    @torch.library.custom_op("ndp_test::drawing", mutates_args=())
    def drawing(x: torch.Tensor) -> torch.Tensor:
        return x * random.random() + torch.rand(())

    seed_all(3)
    alone = drawing(torch.ones(2))
    end = RngState.capture()
    seed_all(3)
    assert watched(lambda: drawing(torch.ones(2))).sites == []
    assert end.same_as(RngState.capture())
    seed_all(3)
    with Rerun(2):
        assert bit_equal(drawing(torch.ones(2)), alone)


def test_counts() -> None:
    def run() -> None:
        x = torch.ones(4)  # rerun
        y = x.view(2, 2).t()  # 2 views
        torch.empty_like(y).fill_(1.0)  # 1 allocation, rerun
        (y + 1).sum().item()  # 3 rerun

    coverage = watched(run).coverage
    assert (coverage.seen, coverage.rerun) == (8, 5)
    assert (coverage.views, coverage.allocations) == (2, 1)
    assert coverage.not_covered == {}


@pytest.mark.parametrize(("shape", "rerun", "views"), [((4,), 0, 1), ((2, 2), 1, 0)])
def test_an_op_that_may_be_a_view_counts_as_what_it_was(
    shape: tuple[int, ...], rerun: int, views: int
) -> None:
    x = torch.arange(4.0).view(shape)
    x = x.t() if x.dim() == 2 else x  # transposed, so that reshape must copy
    with torch.inference_mode():
        coverage = watched(lambda: x.reshape(4)).coverage
    assert (coverage.seen, coverage.rerun, coverage.views) == (1, rerun, views)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_what_cannot_be_checked_is_told_with_its_reason() -> None:
    def run() -> None:
        x = torch.ones(2)
        x.set_(torch.zeros(2))
        x.to_sparse().add(x.to_sparse())
        torch.ones(2, device="meta").add(1)
        TwoTensor(torch.ones(2), torch.ones(2)) + 1
        offences.liar(torch.ones(2))
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8).dequantize()

    missed = watched(run).coverage.not_covered
    assert set(missed) >= {
        "aten.set_.source_Tensor replaces a tensor's memory",
        "layout sparse_coo",
        "tensors without data",
        "operands of tensor subclass TwoTensor",
        "ndp_test.liar.default writes an operand its schema does not name",
        "quantized tensors",
    }


def test_a_liar_writes_the_real_operand_once() -> None:
    x = torch.zeros(2)
    watched(lambda: offences.liar(x))
    assert x.tolist() == [1.0, 1.0]


def test_an_op_that_fails_only_when_repeated_is_not_covered_and_hurts_nobody() -> None:
    calls = itertools.count()

    @torch.library.custom_op("ndp_test::once", mutates_args=())
    def once(x: torch.Tensor) -> torch.Tensor:
        if next(calls):
            raise ValueError("only once")
        return x + torch.rand(())

    seed_all(1)
    alone = torch.ones(1) + torch.rand(())
    end = RngState.capture()
    seed_all(1)
    with Rerun(3) as watch:
        found = once(torch.ones(1))
    assert bit_equal(found, alone)
    assert end.same_as(RngState.capture())
    (reason,) = watch.record().coverage.not_covered
    assert reason == ("ndp_test.once.default: executing it again failed (ValueError: only once)")


def test_the_error_of_an_op_is_the_users_own() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), Rerun(2):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_inference_mode_sees_whole_ops_and_writes_their_running_statistics_once() -> None:
    def run() -> list[torch.Tensor]:
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(3)
        with torch.inference_mode():
            x = torch.randn(8, 3)
            y = (
                nn.functional.dropout(norm(x.t().contiguous().t()), 0.5)
                .reshape(-1)
                .to(torch.float64)
            )
        return [y, norm.running_mean, norm.running_var, torch.rand(1)]

    alone = run()
    found: list[torch.Tensor] = []
    record = watched(lambda: found.extend(run()))
    assert all(map(bit_equal, alone, found))
    assert record.sites == []
    assert record.coverage.not_covered == {}


class Counting(TorchDispatchMode):
    """Somebody else's mode."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_other_modes_see_each_op_once_whichever_is_outside() -> None:
    def run() -> None:
        torch.ones(3).add_(1).bernoulli_()

    expected = ["aten.ones.default", "aten.add_.Tensor", "aten.bernoulli_.float"]
    with Counting() as outside, Rerun(4):
        run()
    with Rerun(4) as watch, Counting() as inside:
        run()
    assert outside.seen == inside.seen == expected
    assert watch.record().coverage.rerun == 3


def test_nested_watches_both_see_each_op_once() -> None:
    x = torch.zeros(3)
    with Rerun(3) as outer, Rerun(2) as inner:
        x.add_(1)
        offences.wobble(x)
    assert x.tolist() == [1.0] * 3
    assert outer.record().coverage.seen == inner.record().coverage.seen == 2
    assert only(inner.record()).executions == 2
    # Whether the outer one sees an op of the inner one's copies would show here.
    assert only(outer.record()).calls == 1


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2)
    )


@contextmanager
def interrupted() -> Iterator[None]:
    with pytest.raises(KeyError, match="in the middle"):
        yield


def trained(probe: Callable[[], Any], *, fail: bool = False) -> list[Any]:
    """Everything that six steps of training leave behind; `probe()` is entered for steps 1 to 3."""
    seed_all(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    left: list[Any] = []
    for step in range(6):
        with (
            interrupted() if fail and step == 2 else nullcontext(),
            probe() if step in (1, 2, 3) else nullcontext(),
        ):
            optimizer.zero_grad()
            loss = model(torch.randn(5, 6)).square().mean()
            left.append(loss.detach())
            if fail and step == 2:
                raise KeyError("in the middle")
            loss.backward()
            optimizer.step()
    for parameter in model.parameters():
        left.append(parameter.detach())
        left += list(optimizer.state[parameter].values())
    left += list(model.buffers())
    left.append(torch.get_rng_state())
    return left


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("k", [2, 5])
def test_training_ends_with_the_same_bits(k: int, fail: bool) -> None:
    alone = trained(nullcontext, fail=fail)
    watch = Rerun(k)
    found = trained(lambda: watch, fail=fail)
    assert len(alone) == len(found)
    assert all(map(bit_equal, alone, found))
    assert watch.record().sites == []


@pytest.mark.usefixtures("one_thread")
def test_the_comparison_would_see_a_probe_that_is_not_neutral() -> None:
    """The check above, with an offence planted: a probe that moves the random stream once."""

    @contextmanager
    def careless() -> Iterator[None]:
        torch.rand(1)
        yield

    alone, found = trained(nullcontext), trained(careless)
    assert not all(map(bit_equal, alone, found))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_code_keeps_its_bits_and_its_compilation(backend: str) -> None:
    """Also after the mode has left: a mode that does not ignore compiled code ends it for good."""

    def run(probe: Callable[[], Any]) -> tuple[list[torch.Tensor], int]:
        torch.compiler.reset()
        torch.manual_seed(0)
        graphs: list[int] = []

        def counted(graph: Any, inputs: Any) -> Any:
            graphs.append(1)
            return compile_with(graph, inputs)

        compile_with = torch._dynamo.lookup_backend(backend)
        inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        model = torch.compile(inner, backend=counted)
        optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
        x = torch.randn(3, 4)
        for step in range(4):
            with probe() if step in (1, 2) else nullcontext():
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
        return [parameter.detach() for parameter in inner.parameters()], len(graphs)

    alone, graphs = run(nullcontext)
    watch = Rerun(3)
    found, graphs_watched = run(lambda: watch)
    assert all(map(bit_equal, alone, found))
    assert graphs == graphs_watched == 1
    record = watch.record()
    assert record.coverage.rerun > 0
    assert any("torch.compile" in caveat for caveat in record.caveats)
    if backend == "aot_eager":
        (reason,) = record.coverage.not_covered
        assert "torch.compile" in reason
    torch.compiler.reset()


def test_the_mode_says_that_it_leaves_compilation_alone() -> None:
    assert RerunMode.ignore_compile_internals() is True
