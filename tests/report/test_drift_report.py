from __future__ import annotations

import math

import pytest
from page_checks import problems

from nondet_probe.records.drift import Drift, DriftCurve
from nondet_probe.report.drift import (
    drift_json,
    drift_limits,
    drift_notes,
    drift_tables,
    drift_verdict,
    render_drift,
)
from nondet_probe.report.driftplot import drift_plot


def growing(run: str = "runs/b", steps: int = 50, first: int = 7) -> DriftCurve:
    distances = [0.0 if step < first else 1e-9 * 1.3 ** (step - first) for step in range(steps)]
    relative = [value / 4 for value in distances]
    return DriftCurve(run, list(range(steps)), distances, relative, first)


def same(run: str = "runs/c", steps: int = 50) -> DriftCurve:
    return DriftCurve(run, list(range(steps)), [0.0] * steps, [0.0] * steps, None)


def broken() -> DriftCurve:
    return DriftCurve("runs/d", [0, 3], [0.0, math.nan], [0.0, math.nan], 3)


def of(*curves: DriftCurve, warnings: tuple[str, ...] = ()) -> Drift:
    return Drift("runs/a", [*curves], "ndp-sketch-1", 3, 1500, 0.0725, 0.95, [*warnings])


def test_verdicts() -> None:
    assert drift_verdict(of(same())) == (
        "runs/c has the sketches of runs/a at all 50 steps compared: no distance was seen."
    )
    assert drift_verdict(of(growing())) == (
        "runs/b differs from runs/a from step 7 on; after step 49 their parameters are "
        "6.10×10⁻⁵ apart, 1.53×10⁻⁵ of the norm."
    )
    assert drift_verdict(of(broken())).endswith("after step 3 the distance is not finite.")
    both = DriftCurve("runs/e", [0], [math.nan], [math.nan], None)
    assert drift_verdict(of(both)).endswith("but parameters that are not finite.")
    many = drift_verdict(of(*[same()] * 5))
    assert many.count("no distance") == 3
    assert many.endswith("Of 2 further runs the tables tell.")


def test_the_table_has_the_first_step_that_differs() -> None:
    short, long = drift_tables(of(broken(), growing(steps=1000, first=340)))
    assert short.rows == [["0", "0", "0"], ["3", "not finite", "not finite"]]
    steps = [int(row[0]) for row in long.rows]
    assert steps == sorted(set(steps))
    assert {0, 340, 999} <= set(steps)
    assert len(steps) == 20
    assert long.title == "runs/b"


def test_notes_and_limits() -> None:
    curve = growing()
    curve.only_here, curve.only_reference = 3, 1
    assert drift_notes(of(curve, same(), warnings=("runs/a did not end",))) == [
        "runs/a did not end",
        "runs/b: 50 steps compared; left out are 3 that only it has a sketch of and 1 that only "
        "the first run has",
    ]
    limits = " ".join(drift_limits(of(curve)))
    assert "3 parameters of together 1500 elements" in limits.replace("\u202f", "")
    assert "within 7.25% of the true one with probability 0.95 or more" in limits


def test_json() -> None:
    found = drift_json(of(growing(), broken()))
    assert found["equal"] is False
    assert found["curves"][0]["first"] == 7
    assert found["curves"][1]["distances"] == [0.0, {"float": "nan"}]
    assert found["verdict"]
    assert drift_json(of(same()))["equal"] is True


@pytest.mark.parametrize(
    "curves",
    [
        [growing()],
        [same()],
        [growing(), same(), broken()],
        [growing(f"runs/{i}", first=3 * i) for i in range(14)],
        [DriftCurve("x", [5], [1.0], [math.inf], 5)],
    ],
    ids=["one", "equal", "three", "fourteen", "none finite"],
)
def test_pages_are_sound(curves: list[DriftCurve]) -> None:
    page = render_drift(of(*curves))
    assert problems(page) == []
    assert page == render_drift(of(*curves))
    drawn = any(map(math.isfinite, curves[0].relative))
    assert page.count("<svg") == drawn


def test_nothing_of_a_strangers_text_is_markup() -> None:
    evil = "<script>alert(1)</script>"
    page = render_drift(of(growing(evil), warnings=(evil,)))
    assert "<script" not in page
    assert problems(page) == []


def test_zeros_lie_at_the_bottom_and_gaps_stay_gaps() -> None:
    text = drift_plot(of(growing(), same()), "k")
    assert text is not None
    assert ">0</text>" in text.replace("\n", "")
    gap = DriftCurve("b", [0, 1, 2], [1.0, math.nan, 2.0], [1.0, math.nan, 2.0], 0)
    assert "nan" not in (drift_plot(of(gap), "k") or "nan").lower().replace("nance", "")
    assert drift_plot(of(DriftCurve("b", [0], [math.nan], [math.nan], 0)), "k") is None
