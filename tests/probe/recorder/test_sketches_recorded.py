"""Sketches a recording keeps: of all parameters, at the end of each step, changing nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from fake_writer import FakeWriter
from torch import nn
from trained import build, ending, train

import nondet_probe as ndp
from nondet_probe.bits import sketch, sketch_distance
from nondet_probe.probe.names import Names
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.recorder.sketches import Sketches
from nondet_probe.probe.recorder.state import State
from nondet_probe.records.trace_reader import open_sketches, open_trace


def of(model: nn.Module) -> torch.Tensor:
    return sketch({name: p.detach() for name, p in model.named_parameters()})


@pytest.mark.parametrize("level", ["step", "op"])
@pytest.mark.parametrize("kind", ["convolutional", "transformer"])
def test_training_ends_with_the_same_bits(kind: str, level: str, tmp_path: Path) -> None:
    plain = build(kind, "adamw foreach")
    expected = ending(plain, train(plain))
    made = build(kind, "adamw foreach")
    with ndp.record(tmp_path / "run", level=level, model=made[0], sketch=True):
        losses = train(made)
    assert ending(made, losses) == expected


def test_each_step_has_the_sketch_of_what_it_left(tmp_path: Path) -> None:
    model, optimizer = build("convolutional", "sgd")
    left = []
    with ndp.record(tmp_path / "run", level="step", model=model, sketch=True):
        for _ in range(3):
            train((model, optimizer), 1)
            left.append(of(model))
    with open_sketches(tmp_path / "run") as found:
        assert found.steps == [0, 1, 2]
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        assert found.layout(2) == shapes
        for step in found.steps:
            assert found.buckets(step).tobytes() == left[step].numpy().tobytes()
        assert sketch_distance(left[0], left[2]) > 0


def test_beside_a_comparison_with_an_earlier_trace(tmp_path: Path) -> None:
    for name, against in (("a", None), ("b", tmp_path / "a")):
        torch.manual_seed(0)
        made = build("convolutional", "sgd")
        with ndp.record(tmp_path / name, level="step", model=made[0], sketch=True, against=against):
            train(made, 2)
    with open_sketches(tmp_path / "a") as a, open_sketches(tmp_path / "b") as b:
        assert a.steps == b.steps == [0, 1]
        assert a.buckets(1).tobytes() == b.buckets(1).tobytes()


def test_without_being_asked_there_is_none(tmp_path: Path) -> None:
    model, optimizer = build("convolutional", "sgd")
    with ndp.record(tmp_path / "run", level="step", model=model):
        train((model, optimizer), 1)
    with open_sketches(tmp_path / "run") as found:
        assert found.steps == []


def test_only_what_is_recorded(tmp_path: Path) -> None:
    model, optimizer = build("convolutional", "sgd")
    schedule = torch.profiler.schedule(wait=1, warmup=1, active=1)
    with ndp.record(
        tmp_path / "run", level="step", model=model, sketch=True, names="^head", schedule=schedule
    ):
        train((model, optimizer), 6)
    with open_sketches(tmp_path / "run") as found:
        assert found.steps == [2, 5]
        assert [*found.layout(5)] == ["head.bias", "head.weight"]


def test_parameters_of_no_model_and_none_twice(tmp_path: Path) -> None:
    alone = nn.Parameter(torch.ones(3))
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD([*model.parameters(), alone], lr=0.1)
    with ndp.record(tmp_path / "run", level="step", sketch=True):
        (model(torch.ones(2, 3)) * alone).sum().backward()
        optimizer.step()
    with open_sketches(tmp_path / "run") as found:
        names = ["Linear.bias", "Linear.weight", "optimizer 0, group 0: parameter 2"]
        assert [*found.layout(0)] == names


def test_a_parameter_of_two_models_counts_once(tmp_path: Path) -> None:
    one, other = nn.Linear(3, 3), nn.Bilinear(3, 3, 3)
    other.bias = one.bias
    optimizer = torch.optim.SGD([*one.parameters(), other.weight], lr=0.1)
    with ndp.record(tmp_path / "run", level="step", sketch=True):
        x = one(torch.ones(2, 3))
        other(x, x).sum().backward()
        optimizer.step()
    with open_sketches(tmp_path / "run") as found:
        assert [*found.layout(0)] == ["Bilinear.weight", "Linear.bias", "Linear.weight"]


def test_what_cannot_be_sketched_is_not_covered(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    model.odd = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    model.far = nn.Parameter(torch.empty(2, device="meta"))
    optimizer = torch.optim.SGD([model.weight, model.bias], lr=0.1)
    with ndp.record(tmp_path / "run", level="step", model=model, sketch=True):
        for _ in range(2):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
    missed = open_trace(tmp_path / "run").meta.coverage.not_covered
    told = {reason: n for reason, n in missed.items() if reason.startswith("sketch: ")}
    assert told == {
        "sketch: a parameter of dtype complex64": 2,
        "sketch: a parameter that cannot be read (a tensor on the meta device has no elements to "
        "read)": 2,
    }
    with open_sketches(tmp_path / "run") as found:
        assert [*found.layout(0)] == ["bias", "weight"]


def test_a_model_without_parameters_has_no_sketch() -> None:
    writer = FakeWriter("step")
    sink = Sink(writer)
    with Sketches(sink, State(sink, Names(nn.ReLU()))):
        sink.end_step()
    assert writer.sketches == []


def test_nan_in_training_is_recorded(tmp_path: Path) -> None:
    model, optimizer = build("convolutional", "sgd")
    with ndp.record(tmp_path / "run", level="step", model=model, sketch=True):
        train((model, optimizer), 1)
        with torch.no_grad():
            model.head.weight.fill_(math.nan)
        train((model, optimizer), 1)
    with open_sketches(tmp_path / "run") as found:
        a, b = (torch.from_numpy(found.buckets(step)) for step in found.steps)
    assert not a.isnan().any()
    assert b.isnan().any()
