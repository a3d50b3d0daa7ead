from __future__ import annotations

import pytest
import torch
from probe_workloads import cross_entropy, endless, net, noisy

from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.drive import (
    Batches,
    build,
    evaluated,
    finite_loss,
    guarded_step,
    plain_run,
)
from nondet_probe.workload import Workload


def workload(**changes: object) -> Workload:
    model = net()
    parts: dict[str, object] = {
        "model": model,
        "optimizer": None,
        "batches": endless(),
        "loss": cross_entropy,
    }
    return Workload(**(parts | changes))  # type: ignore[arg-type]


def test_build_seeds_every_stream_alike() -> None:
    first, second, other = build(noisy, 3), build(noisy, 3), build(noisy, 4)
    assert torch.equal(first.model[0].weight, second.model[0].weight)
    assert not torch.equal(first.model[0].weight, other.model[0].weight)
    draws = []
    for _ in range(2):
        build(noisy, 3)
        draws.append(next(endless())[0])
    assert torch.equal(*draws)


def test_build_leaves_the_mode_of_the_model() -> None:
    assert build(noisy, 0).model.training
    assert not build(lambda seed: workload(model=net().eval()), 0).model.training


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "returned None: a workload is a function of a seed"),
        (net(), "returned a torch.nn.modules.container.Sequential"),
        (Workload, "returned the class Workload"),
        (workload(model=3), "model is a int, not a torch.nn.Module"),
        (workload(optimizer=torch.optim.SGD), "optimizer is the class SGD, not a torch optimizer"),
        (workload(batches=7), "batches is a int, not something that can be iterated"),
        (workload(loss=None), "loss is None, not a function of (model, batch)"),
        (workload(step=1), "step is a int, not a function of (workload, batch) or None"),
        (workload(evaluate=1), "evaluate is a int, not a function of (model) or None"),
    ],
)
def test_build_says_what_is_wrong_with_the_result(given: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(lambda seed: given, 0)  # type: ignore[arg-type,return-value]
    assert said in str(caught.value)


def test_build_names_all_that_is_wrong_at_once() -> None:
    with pytest.raises(UsageError, match=r"model is .*; loss is "):
        build(lambda seed: workload(model=None, loss=None), 0)


def test_build_takes_no_bad_seed_and_nothing_that_cannot_be_called() -> None:
    with pytest.raises(UsageError, match="seed -1"):
        build(noisy, -1)
    with pytest.raises(UsageError, match="cannot be called"):
        build("noisy", 0)  # type: ignore[arg-type]


def test_a_factory_that_raises() -> None:
    def broken(seed: int) -> Workload:
        raise KeyError("no such file")

    with pytest.raises(RunFailedError, match="building the workload failed: KeyError") as caught:
        build(broken, 0)
    assert caught.value.step is None
    assert isinstance(caught.value.__cause__, KeyError)

    def unusable(seed: int) -> Workload:
        raise UsageError("install it first")

    with pytest.raises(UsageError, match=r"^install it first$"):
        build(unusable, 0)


def test_the_iterator_starts_at_the_first_draw() -> None:
    started = []

    class Watched:
        def __iter__(self) -> object:
            started.append(True)
            return iter([1, 2])

    batches = Batches(workload(batches=Watched()), 3)
    assert not started
    assert [batches.draw(0), batches.draw(1)] == [1, 2]
    with pytest.raises(RunFailedError) as caught:
        batches.draw(2)
    assert str(caught.value) == (
        "batches ran out at step 2: the workload gave 2 batches, 3 were asked for; ask for at most "
        "2 steps or make batches endless"
    )
    assert caught.value.step == 2


def test_data_that_raises() -> None:
    def data() -> object:
        yield 1
        raise OSError("disk gone")

    batches = Batches(workload(batches=data()), 3)
    batches.draw(0)
    with pytest.raises(RunFailedError, match="batch of step 1 failed: OSError: disk gone") as info:
        batches.draw(1)
    assert isinstance(info.value.__cause__, OSError)


def test_a_step_that_raises() -> None:
    def broken(workload: Workload, batch: object) -> torch.Tensor:
        raise ZeroDivisionError("oops")

    with pytest.raises(RunFailedError) as caught:
        guarded_step(workload(step=broken), None, 4)
    assert str(caught.value) == "step 4 failed: ZeroDivisionError: oops"
    assert caught.value.step == 4
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(RunFailedError, match="step 4 of the twin failed"):
        guarded_step(workload(step=broken), None, 4, "the twin")


def test_an_interrupt_passes() -> None:
    def interrupted(workload: Workload, batch: object) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded_step(workload(step=interrupted), None, 0)


@pytest.mark.parametrize("loss", [torch.zeros(2), torch.tensor(1), torch.zeros(0)])
def test_a_loss_that_is_no_number(loss: torch.Tensor) -> None:
    with pytest.raises(RunFailedError, match="the loss must be one floating-point number"):
        guarded_step(workload(loss=lambda model, batch: loss), None, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite(value: float) -> None:
    with pytest.raises(RunFailedError, match=f"the loss is {value} at step 7") as caught:
        finite_loss(torch.tensor(value), 7)
    assert caught.value.step == 7
    assert finite_loss(torch.tensor(0.1), 7) == torch.tensor(0.1).item()


def test_evaluation() -> None:
    assert evaluated(workload(), 5) == {}
    assert evaluated(workload(evaluate=lambda model: {"score": torch.tensor(2.0)}), 5) == {
        "score": 2.0
    }
    with pytest.raises(RunFailedError, match="evaluate failed after 5 steps: TypeError") as caught:
        evaluated(workload(evaluate=lambda model: {"score": None}), 5)
    assert caught.value.step == 5


def test_the_plain_run_is_the_plain_loop() -> None:
    torch.manual_seed(0)
    run = plain_run(noisy, 5, 4)
    mine = build(noisy, 5)
    losses = []
    for _, batch in zip(range(4), mine.batches, strict=False):
        mine.optimizer.zero_grad()
        loss = mine.loss(mine.model, batch)
        loss.backward()
        mine.optimizer.step()
        losses.append(loss.item())
    assert run.losses == losses
    assert len(run.seconds) == 4
    assert torch.equal(run.workload.model[0].weight, mine.model[0].weight)
    with pytest.raises(RunFailedError, match="ran out at step 1"):
        plain_run(lambda seed: workload(batches=[next(endless())]), 0, 2)
