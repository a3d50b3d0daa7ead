"""What each part writes: modules, gradients, optimizers, losses, ops."""

from __future__ import annotations

import warnings
from collections import UserDict
from typing import Any

import pytest
import torch
from memory_trace import Memory, Recorded
from torch import nn
from trained import bits_of, build, train

from nondet_probe.bits import digest
from nondet_probe.records.trace import SETUP, TraceRecord, Words


def words(tensor: torch.Tensor) -> Words:
    text = digest(tensor).hex
    first, second = (int(half, 16) for half in (text[:16], text[16:]))
    return tuple(word - (1 << 64) * (word >> 63) for word in (first, second))  # type: ignore


def only(records: list[TraceRecord]) -> TraceRecord:
    (record,) = records
    return record


def test_a_module_alone_has_the_digests_of_its_tensors(recorded: Recorded) -> None:
    model, x = nn.Linear(3, 2), torch.ones(4, 3)
    kept: list[torch.Tensor] = []

    def run(rec: object) -> None:
        y = model(x)
        y.register_hook(kept.append)
        y.sum().backward()
        kept.append(y)

    found = recorded(run, level="module")
    forward = only(found.of(phase="forward", kind="module"))
    assert (forward.site.name, forward.site.module, forward.step) == ("Linear", "Linear", 0)
    assert (forward.inputs, forward.outputs) == (words(x), words(kept[1]))
    back = only(found.of(phase="backward", kind="module"))
    assert back.site.note == "gradient of the output"
    assert back.outputs == words(kept[0])


class Scaled(nn.Module):
    """Writes into what it is given, by position and by name."""

    def forward(self, x: torch.Tensor, *, by: torch.Tensor) -> dict[str, torch.Tensor]:
        x.mul_(2)
        by.add_(1)
        return {"x": x, "by": by}


def test_inputs_are_those_before_the_forward(recorded: Recorded) -> None:
    def run(x: float, by: float) -> TraceRecord:
        model = Scaled()
        found = recorded(
            lambda rec: model(torch.full((2,), x), by=torch.full((2,), by)), level="module"
        )
        return only(found.of(kind="module"))

    first, again, other_x, other_by = run(1, 1), run(1, 1), run(0, 1), run(1, 0)
    assert first == again
    assert len({first.inputs, other_x.inputs, other_by.inputs}) == 3
    # 0 and 0 doubled are the same: had it been read afterwards, so would these be.
    assert run(0, 0).inputs != run(0, -1).inputs


def test_models_are_named_by_their_classes(recorded: Recorded) -> None:
    class Net(nn.Sequential):
        pass

    one, two = Net(nn.Linear(2, 2)), Net(nn.Linear(2, 2))
    loss = nn.MSELoss()

    def run(rec: object) -> None:
        for _ in range(2):
            loss(two(one(torch.ones(2))), torch.ones(2)).backward()

    found = recorded(run, level="module")
    assert {record.site.module for record in found.of(phase="forward", kind="module")} == {
        "Net",
        "Net.0",
        "Net#2",
        "Net#2.0",
        "MSELoss",
    }
    assert {one.site.name for one in found.of(kind="parameter")} == {
        f"{net}.0.{name}" for net in ("Net", "Net#2") for name in ("weight", "bias")
    }


def test_gradients_and_state_are_named_one_by_one(recorded: Recorded) -> None:
    made = build("transformer", "adam")
    names = [name for name, _ in made[0].named_parameters()]
    found = recorded(lambda rec: train(made, 1), level="module", model=made[0])
    gradients = [record.site.name for record in found.of(kind="gradient")]
    assert gradients == [*names, "gradient norm"]
    assert [one.site.name for one in found.of(kind="parameter", phase="state")] == names
    states = [record.site.name for record in found.of(kind="optimizer", phase="state")]
    assert {f"{name}: {key}" for name in names for key in ("exp_avg", "exp_avg_sq", "step")} == {
        *states
    }
    norm = found.of(name="gradient norm")[0].value
    expected = torch.nn.utils.get_total_norm([p.grad for p in made[0].parameters()])
    assert norm == expected.item()


def test_settings_of_the_optimizer_count(recorded: Recorded) -> None:
    def run(lr: float) -> TraceRecord:
        made = build("lstm", "sgd")
        made[1].param_groups[0]["lr"] = lr
        found = recorded(lambda rec: train(made, 1), level="module")
        # What an optimizer steps with comes before what it makes of it.
        places = [record.number for record in found.of(phase="optimizer", kind="optimizer")]
        assert max(places) < found.of(kind="gradient")[0].number
        assert found.of(name="optimizer 0, group 0: settings")
        return found.of(name="optimizer 0, group 0: lr")[0]

    assert run(0.1) == run(0.1)
    assert (run(0.1).value, run(0.2).value) == (0.1, 0.2)
    assert run(0.1).outputs != run(0.2).outputs


def test_gradients_are_there_for_an_optimizer_that_takes_a_closure(recorded: Recorded) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    results = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2)).square().sum()
        loss.backward()
        return loss

    def run(rec: object) -> None:
        results.append(optimizer.step(closure))
        results.append(optimizer.step(closure=closure))

    found = recorded(run, level="module", model=model)
    assert len(found.of(name="weight", kind="gradient")) == 2
    assert [one.value for one in found.of(name="loss")] == [one.item() for one in results]


def test_the_first_optimizer_counts_the_steps(recorded: Recorded) -> None:
    model = nn.Linear(2, 1)
    slow, fast = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))

    def run(rec: object) -> None:
        for number in range(4):
            model(torch.ones(2)).sum().backward()
            fast.step()
            if number % 2:
                slow.step()

    assert {one.step for one in recorded(run, level="step").of(kind="parameter")} == {0, 1, 2, 3}
    steps = {one.step for one in recorded(run, level="step", optimizer=slow).of(phase="state")}
    assert steps == {0, 1}


def test_several_losses_in_a_step_are_told_apart(recorded: Recorded) -> None:
    model = nn.Linear(2, 1)

    def run(rec: Any) -> None:
        for _ in range(2):
            for scale in (1.0, 2.0):
                (model(torch.ones(2)).sum() * scale).backward()
            torch.autograd.backward([model(torch.ones(2)).sum()])
            rec.step()

    found = recorded(run, level="step")
    names = [(one.step, one.site.name) for one in found.of(kind="loss")]
    assert names == [(step, f"loss{n}") for step in (0, 1) for n in ("", " 2", " 3")]


@pytest.mark.parametrize("model", ["checkpoint", "reentrant checkpoint"])
def test_a_forward_that_runs_again_is_told_as_such(model: str, recorded: Recorded) -> None:
    made = build(model, "sgd")
    found = recorded(lambda rec: train(made, 1), level="op", model=made[0])
    block = found.of(module="block.0", kind="module", name="Linear")
    forward = [record for record in block if record.site.phase == "forward"]
    again = [record for record in block if record.site.note == "recomputed"]
    assert (len(forward), len(again)) == (1, 1)
    assert again[0].site.phase == "backward"
    assert again[0].inputs == forward[0].inputs
    assert again[0].outputs == forward[0].outputs
    assert len(found.of(kind="loss")) == 1
    ops = found.of(name="aten.addmm.default", module="block.0")
    assert [(one.site.phase, one.site.note) for one in ops] == [
        ("forward", None),
        ("backward", "recomputed"),
    ]


def test_ops_of_the_setup_are_of_the_setup(recorded: Recorded) -> None:
    def run(rec: object) -> None:
        train(build("lstm", "sgd"), 1)

    found = recorded(run, level="op")
    setup = found.of(step=SETUP)
    assert {one.site.phase for one in setup} == {"setup"}
    assert "aten.uniform_.default" in {one.site.name for one in setup}
    assert "aten._thnn_fused_lstm_cell.default" not in {one.site.name for one in setup}


def test_foreach_and_fused_ops_have_their_mutated_operands(recorded: Recorded) -> None:
    def run(optimizer: str) -> Memory:
        made = build("lstm", optimizer)
        return recorded(lambda rec: train(made, 2), level="op")

    for optimizer, name in (("adamw fused", "aten._fused_adamw_.default"),):
        steps = [one.outputs for one in run(optimizer).of(name=name)]
        assert len(set(steps)) == 2
    lerps = [one.outputs for one in run("adamw foreach").of(name="aten._foreach_lerp_.Scalar")]
    assert len(set(lerps)) == 2


def test_memory_that_nobody_wrote_does_not_count(recorded: Recorded) -> None:
    """What only overwrites its operand has the same inputs whatever lay there."""

    def run(pattern: int) -> Memory:
        def body(rec: object) -> None:
            x = torch.empty(8)
            bits_of(x)[:] = pattern
            torch.zeros_like(x)
            x.new_ones(3)
            x.fill_(1)
            for act in (
                lambda: torch.add(torch.ones(8), 1, out=x),
                lambda: x.copy_(torch.ones(8)),
                lambda: x.uniform_(generator=torch.Generator().manual_seed(3)),
                lambda: torch._foreach_zero_([x]),
            ):
                bits_of(x)[:] = pattern
                act()

        return recorded(body, level="op")

    one, other = run(0), run(12345)
    assert one.records == other.records
    assert len(one.of(kind="op")) > 8


def test_what_cannot_be_read_is_not_covered(recorded: Recorded) -> None:
    class Sparse(nn.Module):
        def forward(self, x: torch.Tensor, other: object) -> torch.Tensor:
            return x.to_sparse()

    def run(rec: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Sparse()(torch.eye(2), UserDict())

    found = recorded(run, level="op")
    module = only(found.of(kind="module"))
    assert module.inputs is not None
    assert module.outputs is None
    told = found.meta.coverage.not_covered
    assert told["module Sparse: layout sparse_coo"] == 1
    assert told["module Sparse: objects of type UserDict"] == 1
    assert any(key.startswith("aten.") and "sparse_coo" in key for key in told)


def test_collectives_count_once_they_are_waited_for(recorded: Recorded) -> None:
    plain = torch.ones(3)
    found = recorded(lambda rec: torch.ops._c10d_functional.wait_tensor(plain), level="op")
    assert only(found.of(kind="collective")).outputs == words(plain)
