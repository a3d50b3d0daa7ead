"""A fault is injected at its step and moment, nowhere else, and the trace says so."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_trace import Memory, Recorded
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trained import build, ending, train

import nondet_probe as ndp
from nondet_probe import Fault
from nondet_probe.bits import bit_equal
from nondet_probe.env.rng import preserved_rng
from nondet_probe.errors import UsageError
from nondet_probe.records.trace import TraceRecord
from nondet_probe.records.trace_reader import open_trace

MODEL, OPTIMIZER = "convolutional", "adam"


def first_difference(a: Memory, b: Memory) -> TraceRecord:
    """The first record of b that is not that of a."""
    pairs = zip(a.records, b.records, strict=True)
    return next(two for one, two in pairs if one[:5] != two[:5])


def traced(recorded: Recorded, fault: Fault | None, level: str = "module", **given: Any) -> Memory:
    with preserved_rng():
        made = build(MODEL, OPTIMIZER)
        torch.manual_seed(1)
        return recorded(lambda rec: train(made), level=level, model=made[0], inject=fault, **given)


# fault -> (phase, kind, name, module) of the first record that differs.
WHERE = {
    Fault("weight", "conv.weight", 3, bit=0, step=1): ("setup", "parameter", "conv.weight", "conv"),
    Fault("bias", "head.bias", 0, bit=0, step=1, when="before data"): (
        *("setup", "parameter", "head.bias", "head"),
    ),
    Fault("buffer", "norm.running_mean", 1, bit=3, step=2): (
        *("setup", "buffer", "norm.running_mean", "norm"),
    ),
    Fault("weight", "head.weight", 1, bit=0, step=1, when="after optimizer"): (
        *("state", "parameter", "head.weight", "head"),
    ),
    Fault("weight", "head.weight", 1, bit=22, step=1, when="after forward"): (
        *("backward", "module", "BatchNorm2d", "norm"),
    ),
    Fault("input", "head", 5, bit=20, step=1): ("forward", "module", "Linear", "head"),
    Fault("output", "norm", 5, bit=20, step=1): ("forward", "module", "BatchNorm2d", "norm"),
    Fault("input", "", 5, bit=20, step=1): ("forward", "module", "Conv2d", "conv"),
    Fault("gradient", "norm.weight", 1, bit=9, step=1): (
        *("backward", "gradient", "norm.weight", "norm"),
    ),
    Fault("gradient", "norm.weight", 1, bit=9, step=1, when="after backward"): (
        *("backward", "gradient", "norm.weight", "norm"),
    ),
    Fault("optimizer", "conv.bias: exp_avg", 1, bit=30, step=1): (
        *("state", "parameter", "conv.bias", "conv"),
    ),
    Fault("optimizer", "conv.bias: exp_avg", 1, bit=0, step=1, when="after optimizer"): (
        *("state", "optimizer", "conv.bias: exp_avg", "conv"),
    ),
    Fault("rng", "torch cpu", 7, bit=0, step=2): ("data", "rng", "torch cpu", None),
}


@pytest.mark.parametrize(("fault", "place"), WHERE.items(), ids=[str(one) for one in WHERE])
def test_the_trace_differs_from_where_the_fault_is(
    fault: Fault, place: tuple[str, ...], recorded: Recorded
) -> None:
    plain = traced(recorded, None)
    found = traced(recorded, fault)
    first = first_difference(plain, found)
    assert (first.step, *first.site[:4]) == (fault.step, *place)
    injection = found.meta.injected
    assert injection is not None
    assert injection.change is not None
    assert (injection.fault, injection.change.index) == (fault, fault.index)
    assert str(injection) in found.meta.caveats
    assert plain.meta.injected is None
    # The same fault is the same run.
    assert traced(recorded, fault).records == found.records


def test_an_output_differs_while_its_inputs_do_not(recorded: Recorded) -> None:
    plain = traced(recorded, None)
    for site, inputs_equal in (("output", True), ("input", False)):
        first = first_difference(plain, traced(recorded, Fault(site, "conv", 0, bit=22, step=1)))
        assert first.site.module == "conv"
        assert (first.inputs == plain.records[first.number].inputs) is inputs_equal


@pytest.mark.parametrize("level", ["step", "op"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("weight", "head.weight", 0, bit=22, step=1),
        Fault("output", "norm", 0, bit=22, step=1),
        Fault("rng", "torch cpu", 5, bit=22, step=1),
    ],
    ids=str,
)
def test_other_levels_see_it_and_no_op_of_ours(
    fault: Fault, level: str, recorded: Recorded
) -> None:
    plain, found = traced(recorded, None, level), traced(recorded, fault, level)
    assert [one.site for one in plain.records] == [one.site for one in found.records]
    assert first_difference(plain, found).step == 1


def test_steps_that_are_not_recorded_are_injected_into(recorded: Recorded) -> None:
    of = torch.profiler.ProfilerAction

    def wait(step: int) -> torch.profiler.ProfilerAction:
        return of.RECORD if step == 2 else of.NONE

    fault = Fault("weight", "head.weight", 0, bit=22, step=1)
    plain = traced(recorded, None, schedule=wait)
    assert first_difference(plain, traced(recorded, fault, schedule=wait)).step == 2


def test_a_fault_that_is_not_due_changes_no_bit() -> None:
    for fault in (
        Fault("weight", "head.weight", 0, bit=0, step=3),
        Fault("output", "norm", 0, bit=0, step=3),
    ):
        plain = build(MODEL, OPTIMIZER)
        expected = ending(plain, train(plain))
        made = build(MODEL, OPTIMIZER)
        losses: list[float] = []
        hooks = _global_hooks()
        late = pytest.raises(UsageError, match="the run ended after 3 steps, which count from 0")
        with late, ndp.inject(fault):
            losses += train(made)
        assert ending(made, losses) == expected
        assert _global_hooks() == hooks


def _global_hooks() -> list[int]:
    from torch.nn.modules import module
    from torch.optim import optimizer

    kept = (
        module._global_forward_pre_hooks,
        module._global_forward_hooks,
        optimizer._global_optimizer_pre_hooks,
        optimizer._global_optimizer_post_hooks,
    )
    return [*map(len, kept), id(torch.autograd.backward)]


@pytest.mark.parametrize("given", [True, False])
def test_alone_and_recorded_are_the_same_run(given: bool, recorded: Recorded) -> None:
    fault = Fault("weight", "conv.weight", seed=3, bit=4, step=1)
    endings = []
    for alone in (True, False):
        made = build(MODEL, OPTIMIZER)
        losses: list[float] = []
        model = made[0] if given else None

        def run(_: object, made: Any = made, losses: list[float] = losses) -> None:
            losses += train(made)

        if alone:
            with ndp.inject(fault, model=model) as injecting:
                run(None)
            change = injecting.change
        else:
            found = recorded(run, model=model, inject=fault).meta.injected
            assert found is not None
            assert change is not None
            assert found.change is not None
            assert (found.change.index, found.change.after) == (change.index, change.after)
            assert change.name == ("conv.weight" if given else "Convolutional.conv.weight")
        endings.append(ending(made, losses))
    assert endings[0] == endings[1]
    plain = build(MODEL, OPTIMIZER)
    assert ending(plain, train(plain)) != endings[0]


def test_a_nan_is_a_result_with_its_step(recorded: Recorded) -> None:
    fault = Fault("weight", "head.weight", 0, bit=30, step=1)

    def run(rec: object) -> None:
        made = build(MODEL, "sgd")
        made[0].head.weight.data[0, 0] = 1.5  # with its highest exponent bit, NaN
        train(made)

    found = recorded(run, inject=fault)
    losses = {one.step: one.value for one in found.of(kind="loss")}
    assert math.isfinite(losses[0])
    assert math.isnan(losses[1])
    assert math.isnan(losses[2])
    assert found.meta.status == "complete"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("weight", "haed.weight", 0, bit=0), "did you mean 'head.weight'"),
        (Fault("weight", "head.weight", 48, bit=0), "index 48 is out of range .* 0 to 47"),
        (Fault("gradient", "head.weight", 0, bit=32), "bit 32 is out of range"),
        (Fault("buffer", "norm.num*", 0, change="ulp up", step=9), "have no ulp"),
        (Fault("output", "norms", 0, bit=0), "unknown module 'norms'; did you mean 'norm'"),
        (Fault("output", "*", 0, bit=0), "4 modules are called '\\*', and one is needed"),
        (Fault("rng", "torch gpu", 0, bit=0), "did you mean 'torch cpu'"),
        (Fault("bias", seed=0, number=99, bit=0), "have 7 elements, and none is drawn twice"),
    ],
    ids=str,
)
def test_with_a_model_it_is_told_before_the_training(fault: Fault, reason: str) -> None:
    made = build(MODEL, OPTIMIZER)
    for context in (
        lambda: ndp.inject(fault, model=made[0]),
        lambda: ndp.record("nowhere", model=made[0], inject=fault),
    ):
        hooks = _global_hooks()
        with pytest.raises(UsageError, match=reason), context():
            raise AssertionError("the training began")
        assert _global_hooks() == hooks
        assert not Path("nowhere").exists()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("fault", "reason", "steps"),
    [
        (Fault("weight", "haed.weight", 0, bit=0), "did you mean 'head.weight'", 1),
        (Fault("weight", "haed.weight", 0, bit=0, step=2), "did you mean 'head.weight'", 2),
        (Fault("weight", "head.weight", 48, bit=0, step=2), "index 48 is out of range", 2),
        (Fault("output", "norms", 0, bit=0, step=2), "did you mean 'norm'", 2),
        (Fault("output", "norms", 0, bit=0), "did you mean 'norm'", 1),
        (Fault("output", "norm", 10**6, bit=0, step=1), "index 1000000 is out of range", 1),
        (Fault("output", "conv", 0, bit=40, step=1), "bit 40 is out of range", 1),
        (
            Fault("optimizer", "conv.bias: xp_avg", 0, bit=0, step=1),
            "did you mean .*'conv.bias: exp_avg'",
            2,
        ),
        (Fault("optimizer", "conv.bias: exp_avg", 0, bit=0), "no state of an optimizer at", 1),
        (Fault("gradient", "conv.bias", 0, bit=0, when="before backward"), "has no gradient", 1),
        (Fault("batch", None, 0, bit=0, step=1), "take site 'input'", 2),
        (Fault("weight", "conv.bias", 0, bit=0, step=1), "unknown weight 'conv.bias'", 2),
        (Fault("weight", "c*", 0, bit=0, when="before data"), "there is no weight at that", 1),
    ],
    ids=str,
)
def test_without_a_model_it_is_told_as_soon_as_it_can_be(
    fault: Fault, reason: str, steps: int
) -> None:
    made = build(MODEL, OPTIMIZER)
    reached: list[int] = []

    def count(where: str, step: int, *_: object) -> None:
        if where == "optimizer":
            reached.append(step)

    with pytest.raises(UsageError, match=f"nothing was injected .*{reason}"), ndp.inject(fault):
        train(made, change=count)
    assert len(reached) == steps


def test_what_fails_by_itself_is_left_to_fail() -> None:
    with pytest.raises(ZeroDivisionError), ndp.inject(Fault("rng", "numpy", 0, bit=0, step=5)):
        raise ZeroDivisionError


def test_a_forked_child_that_leaves_the_block_missed_nothing() -> None:
    made = build(MODEL, OPTIMIZER)
    with ndp.inject(Fault("rng", "numpy", 0, bit=0)) as injecting:
        child = os.fork()
        if child == 0:
            try:
                injecting.__exit__(None, None, None)
            except UsageError:
                os._exit(1)
            os._exit(0)
        train(made, 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_injection_is_entered_once_and_of_a_fault() -> None:
    injecting = ndp.inject(Fault("rng", "numpy", 0, bit=0))
    with pytest.raises(UsageError, match="the run ended after 0 steps"), injecting:
        pass
    with pytest.raises(UsageError, match="was entered before"):
        injecting.__enter__()
    with pytest.raises(UsageError, match=r"a nondet_probe\.Fault is needed, not dict"):
        ndp.inject({"site": "rng"})  # type: ignore[arg-type]


def test_training_without_an_optimizer_says_where_its_steps_end() -> None:
    weight = nn.Parameter(torch.ones(3))
    model = nn.Module()
    model.register_parameter("weight", weight)
    seen = []
    fault = Fault("weight", "weight", 1, bit=31, step=2, when="after backward")
    with ndp.inject(fault, model=model) as injecting:
        for _ in range(4):
            (weight * weight).sum().backward()
            seen.append(weight.tolist())
            injecting.step()
    assert [one[1] for one in seen] == [1.0, 1.0, -1.0, -1.0]


def small(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> list[str]:
    losses = []
    for (x,) in batches:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item().hex())
    return losses


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_changed_for_its_step_and_not_in_the_data_set(workers: int) -> None:
    data = torch.arange(24.0).view(8, 3)
    kept = data.clone()

    def losses(fault: Fault | None) -> list[str]:
        made = small()
        # Slices of the data set's own memory, where no worker copies them.
        loader = DataLoader(
            TensorDataset(data),
            batch_size=None,
            sampler=[slice(i, i + 2) for i in range(0, 8, 2)],
            num_workers=workers,
        )
        with preserved_rng():
            torch.manual_seed(0)
            if fault is None:
                return fit(*made, loader)
            with ndp.inject(fault) as injecting:
                found = fit(*made, loader)
            assert injecting.change is not None
            assert injecting.change.name == "loader 0: 0"
            return found

    plain = losses(None)
    found = losses(Fault("batch", "0", 4, bit=22, step=2))
    assert bit_equal(data, kept)
    assert [a == b for a, b in zip(plain, found, strict=True)] == [True, True, False, False]


def test_what_the_program_writes_into_a_batch_after_its_step_stays() -> None:
    model, optimizer = small()
    data = torch.ones(2, 3)
    with ndp.inject(Fault("input", "0", 4, bit=31), model=model) as injecting:
        fit(model, optimizer, [(data,)])
        assert data.flatten()[4] == 1.0
        data.flatten()[4] = -1.0  # the bits that the fault gave it
        fit(model, optimizer, [(data,)])
    assert injecting.change is not None
    assert data.flatten()[4] == -1.0


def test_the_batches_of_another_loader_are_left_alone() -> None:
    data = torch.ones(4, 3)
    model, optimizer = small()
    changed = []
    with ndp.inject(Fault("batch", None, 0, bit=31, step=1)) as injecting:
        training = iter(DataLoader(TensorDataset(data), 2))
        fit(model, optimizer, [next(training)])
        for (x,) in DataLoader(TensorDataset(data.clone()), 2):
            changed.append(bool((x < 0).any()))
        assert injecting.change is None
        fit(model, optimizer, [next(training)])
    assert injecting.change is not None
    assert changed == [False, False]


def test_an_evaluation_is_left_alone() -> None:
    model, optimizer = small()
    x = torch.ones(2, 3)

    def evaluated() -> list[float]:
        model.eval()
        with torch.no_grad():
            found = model(x).tolist()
        model.train()
        return [value for (value,) in found]

    plain = evaluated()
    with ndp.inject(Fault("output", "2", 0, bit=31), model=model) as injecting:
        assert evaluated() == plain
        assert injecting.change is None
        fit(model, optimizer, [(x,)])
    assert injecting.change is not None

    def only_evaluated_in_step_1() -> None:
        fit(model, optimizer, [(x,)])
        evaluated()
        model[0](x).square().mean().backward()
        optimizer.step()

    never = ndp.inject(Fault("output", "2", 0, bit=31, step=1), model=model)
    with pytest.raises(UsageError, match=r"module 2 was not called .*, or for evaluation"), never:
        only_evaluated_in_step_1()


class Doubled(nn.Module):
    """Takes a tensor by keyword and gives two."""

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"once": x * scale, "twice": 2 * x * scale}


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Doubled()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.inner(x * self.weight, scale=torch.ones(2))
        return out["once"] + out["twice"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("input", "inner: scale", 1, bit=31), [3.0, -3.0]),
        (Fault("input", "inner: 0", 0, bit=31), [-3.0, 3.0]),
        (Fault("output", "inner: twice", 1, bit=31), [3.0, -1.0]),
    ],
    ids=str,
)
def test_one_tensor_of_several_of_a_module(fault: Fault, expected: list[float]) -> None:
    model = Keyword()
    with ndp.inject(fault) as injecting:
        out = model(torch.ones(2))
    assert out.tolist() == expected
    assert injecting.change is not None
    assert injecting.change.name == f"Keyword.{fault.name}"
    several = ndp.inject(Fault(fault.site, "inner", 0, bit=0))
    with pytest.raises(UsageError, match="2 tensors are called 'inner', and one"), several:
        model(torch.ones(2))


def test_gradients_that_come_within_a_closure() -> None:
    model, optimizer = small()
    x = torch.ones(2, 3)
    found = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        found.append(model[0].weight.grad.clone())
        return loss

    with ndp.inject(Fault("gradient", "0.weight", 2, bit=31), model=model) as injecting:
        optimizer.step(closure)
    assert injecting.change is not None
    assert float(model[0].weight.grad.flatten()[2]) == -float(found[0].flatten()[2])


def test_of_two_optimizers_the_one_that_has_the_gradient() -> None:
    (one, first), (two, second) = small(0), small(1)
    x = torch.ones(2, 3)

    def both(steps: int) -> Iterator[None]:
        for _ in range(steps):
            for model, optimizer in ((one, first), (two, second)):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
            yield

    # A step ends with the first one's, so the second model's first time is in step 1.
    fault = Fault("gradient", "Sequential#2.2.bias", 0, bit=31, step=1)
    with ndp.inject(fault) as injecting:
        for _ in both(2):
            pass
    assert injecting.change is not None
    assert injecting.change.name == "Sequential#2.2.bias"


def test_the_trace_on_disk_tells_it(tmp_path: Path) -> None:
    made = build(MODEL, OPTIMIZER)
    fault = Fault("weight", None, seed=1, number=4, bit=0, step=1)
    with ndp.record(tmp_path / "run", level="step", inject=fault) as rec:
        before = open_trace(tmp_path / "run").meta.injected
        train(made)
    assert before is not None
    assert (before.fault, before.change) == (fault, None)
    found = open_trace(tmp_path / "run").meta
    assert found.injected == rec.meta.injected
    assert found.injected is not None
    assert found.injected.change is not None
    assert found.injected.change.after in found.caveats[0]
    text = (tmp_path / "run" / "meta.json").read_text()
    (tmp_path / "run" / "meta.json").write_text(text.replace('"site": "weight"', '"site": "no"'))
    with pytest.raises(ndp.RecordError, match="unknown site 'no'"):
        open_trace(tmp_path / "run")


def test_a_recording_whose_fault_was_missed_has_failed(tmp_path: Path) -> None:
    made = build(MODEL, OPTIMIZER)
    rec = ndp.record(tmp_path / "run", inject=Fault("rng", "numpy", 0, bit=0, step=3))
    with pytest.raises(UsageError, match="the run ended after 3 steps"), rec:
        train(made)
    meta = open_trace(tmp_path / "run").meta
    assert meta.status == "failed"
    assert meta.failure is not None
    assert meta.failure.startswith("nothing was injected (bit 0 of rng numpy[0], step 3")
