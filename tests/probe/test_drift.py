"""Drift: distances between traces, of which each is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nondet_probe.bits import SKETCH_FORMAT, sketch
from nondet_probe.errors import RecordError, UsageError
from nondet_probe.probe.drift import CONFIDENCE, drift
from nondet_probe.records.trace import TraceMeta
from nondet_probe.records.trace_writer import TraceWriter

STATE = {"net.weight": torch.arange(12.0).reshape(3, 4), "net.bias": torch.ones(3)}
NORM = math.sqrt(sum(i * i for i in range(12)) + 3)


def run(
    directory: Path,
    steps: Mapping[int, Mapping[str, Tensor]],
    *,
    form: str = SKETCH_FORMAT,
    buckets: int = 4096,
    **meta: object,
) -> Path:
    given = {"level": "step", "inputs": True, "command": None, "created": "", "environment": {}}
    writer = TraceWriter(
        directory, TraceMeta(**given, digest_format="d", **({"status": "complete"} | meta))
    )
    for step, state in steps.items():
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        found = np.resize(sketch(state).numpy(), buckets)
        writer.sketch(step, form, shapes, found.tobytes())
    writer.close()
    return directory


def moved(by: float) -> dict[str, Tensor]:
    """One element of STATE, by so much."""
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    state["net.weight"][1, 1] += by
    return state


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return run(tmp_path / "a", dict.fromkeys(range(4), STATE))


def test_known_distances(a: Path, tmp_path: Path) -> None:
    b = run(tmp_path / "b", {0: STATE, 1: STATE, 2: moved(0.5), 3: moved(-2.0)})
    c = run(tmp_path / "c", dict.fromkeys(range(4), STATE))
    seen = []
    found = drift([a, b, c], lambda done, total: seen.append((done, total)))
    first, second = found.curves
    assert (first.run, first.steps, first.first) == (str(b), [0, 1, 2, 3], 2)
    assert first.distances == [0.0, 0.0, 0.5, 2.0]
    assert first.relative == [0.0, 0.0, 0.5 / NORM, 2.0 / NORM]
    assert (second.first, second.distances) == (None, [0.0] * 4)
    assert second.clean
    assert not first.clean
    assert not found.clean
    assert (found.reference, found.parameters, found.elements) == (str(a), 2, 15)
    assert found.form == SKETCH_FORMAT
    assert 0.07 < found.error < 0.08
    assert found.confidence == CONFIDENCE
    assert seen == [(i, 8) for i in range(1, 9)]


def test_what_differs_without_a_distance_is_a_difference(tmp_path: Path) -> None:
    """Sketches of other bits, so small that the distance underflows to zero."""
    tiny = {"w": torch.tensor([1e-200], dtype=torch.float64)}
    a = run(tmp_path / "a", {0: tiny})
    b = run(tmp_path / "b", {0: {"w": -tiny["w"]}})
    (curve,) = drift([a, b]).curves
    assert (curve.distances, curve.first) == ([0.0], 0)


def test_only_steps_that_both_have(a: Path, tmp_path: Path) -> None:
    b = run(tmp_path / "b", {2: STATE, 3: moved(1.0), 7: STATE})
    (curve,) = drift([a, b]).curves
    assert (curve.steps, curve.only_here, curve.only_reference) == ([2, 3], 1, 2)
    with pytest.raises(UsageError, match=r"no step in common: .* 0 to 3, the other of 9 to 9"):
        drift([a, run(tmp_path / "c", {9: STATE})])


def test_dtypes_may_differ(a: Path, tmp_path: Path) -> None:
    narrow = {name: tensor.bfloat16() for name, tensor in STATE.items()}
    (curve,) = drift([a, run(tmp_path / "b", {1: narrow})]).curves
    assert curve.clean, "these values are the same in bfloat16"


def test_what_is_not_finite(a: Path, tmp_path: Path) -> None:
    b = run(tmp_path / "b", {0: moved(math.nan), 1: moved(math.inf)})
    (curve,) = drift([a, b]).curves
    assert all(map(math.isnan, [*curve.distances, *curve.relative]))
    assert curve.first == 0
    same = drift([b, b]).curves[0]
    assert same.first is None
    assert not same.clean


def test_against_a_model_of_zeros(tmp_path: Path) -> None:
    zeros = {"w": torch.zeros(3)}
    a = run(tmp_path / "a", {0: zeros, 1: zeros})
    b = run(tmp_path / "b", {0: zeros, 1: {"w": torch.ones(3)}})
    (curve,) = drift([a, b]).curves
    assert curve.relative == [0.0, math.inf]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"GPT.net.weight": STATE["net.weight"], "net.bias": STATE["net.bias"]},
            r"only the first has net\.weight \(near: GPT\.net\.weight\); only the other has GPT",
        ),
        (
            {"net.weight": STATE["net.weight"].t(), "net.bias": STATE["net.bias"]},
            r"net\.weight is of shape \(3, 4\) and of shape \(4, 3\)",
        ),
        (
            STATE | {f"more.{i}": torch.ones(1) for i in range(5)},
            r"only the other has more\.0, more\.1, more\.2, \.\.\.",
        ),
    ],
)
def test_other_parameters(a: Path, tmp_path: Path, state: dict[str, Tensor], said: str) -> None:
    b = run(tmp_path / "b", {0: STATE, 3: state})
    with pytest.raises(UsageError, match=f"other parameters at step 3, .*{said}"):
        drift([a, b])


def test_what_cannot_be_compared(a: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two runs or more to compare, got 1"):
        drift([a])
    with pytest.raises(UsageError, match=r"none holds no sketches: record it with .*--sketch"):
        drift([a, run(tmp_path / "none", {})])
    with pytest.raises(UsageError, match=r"step 0 is of format 'ndp-sketch-9'; this .*-1'"):
        drift([a, run(tmp_path / "other", {0: STATE}, form="ndp-sketch-9")])
    with pytest.raises(RecordError, match="step 0 has 4095 buckets, not 4096"):
        drift([a, run(tmp_path / "short", {0: STATE}, buckets=4095)])
    with pytest.raises(RecordError, match="does not exist"):
        drift([a, tmp_path / "nowhere"])


def test_warnings(a: Path, tmp_path: Path) -> None:
    b = run(tmp_path / "b", {0: STATE}, status="failed", failure="boom", world=2)
    c = TraceWriter(tmp_path / "c", TraceMeta("step", True, None, "", {}, "d", status="complete"))
    c.meta.coverage.not_covered = {"sketch: a parameter of dtype int8": 3, "else": 5}
    shapes = {name: tuple(tensor.shape) for name, tensor in STATE.items()}
    c.sketch(0, SKETCH_FORMAT, shapes, sketch(STATE).numpy().tobytes())
    c.close()
    assert drift([a, b, tmp_path / "c"]).warnings == [
        f"{b} did not come to its end (status failed: boom)",
        f"{b} is of 2 processes; only rank 0 is compared",
        f"{tmp_path / 'c'}: 3 times a parameter could not be sketched; nondet-probe show",
    ]
