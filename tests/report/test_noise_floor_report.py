from __future__ import annotations

import dataclasses
import math

import pytest
from page_checks import problems

from nondet_probe.records.drift import Drift, DriftCurve
from nondet_probe.records.noise_floor import OUTCOMES, FanBand, NoiseFloor, Placing, TwinCurve
from nondet_probe.report.fanplot import fan_plot
from nondet_probe.report.noise_floor import (
    floor_json,
    floor_limits,
    floor_notes,
    floor_tables,
    floor_verdict,
    render_floor,
)

STEPS = 40
GROWTH = [1e-9 * 1.2**age for age in range(STEPS)]


def curve(run: str, relative: list[float], first: int | None) -> DriftCurve:
    return DriftCurve(run, [*range(len(relative))], relative, relative, first)


def twin(number: int, relative: list[float], **more: int | bool | None) -> TwinCurve:
    given: dict[str, int | bool | None] = {"absorbed": None, "broken": None, "reused": False}
    steps = [*range(5, 5 + len(relative))]
    fault = "bit 0 of net.weight[3], float32"
    return TwinCurve(f"a-one-bit/step-5/twin-{number}", fault, steps, relative, **(given | more))  # type: ignore[arg-type]


def floor(placing: Placing, run: str = "b", **changes: object) -> NoiseFloor:
    relative = [0.0] * 5 + GROWTH[: STEPS - 5]
    drift = Drift("a", [curve(run, relative, 5)], "ndp-sketch-1", 3, 1500, 0.0725, 0.95)
    twins = [twin(0, GROWTH[:35]), twin(1, [3 * value for value in GROWTH[:35]], reused=True)]
    fan = GROWTH[:35]
    band = FanBand([*range(35)], [v / 9 for v in fan], fan, [9 * v for v in fan])
    control = curve("a-one-bit/control", [0.0] * STEPS, None)
    whole = NoiseFloor(drift, placing, 5, control, twins, band, "a-one-bit", 1e-15)
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


BIT = Placing("one bit", (5, 39), 5, 2, 5, factor=1.1, factor_low=0.6, factor_high=2.0, tried=0)
APART = Placing(
    "larger", (5, 39), factor=230.0, factor_low=120.0, factor_high=500.0, above=35, compared=35,
    tried=2,
)  # fmt: skip


def test_one_bit() -> None:
    assert floor_verdict(floor(BIT)) == (
        "b is indistinguishable from a with one bit changed at step 5 (interval 2 to 5), by their "
        "distance over steps 5 to 39."
    )
    assert floor_notes(floor(BIT)) == ["1 of 2 twins taken from an earlier call, in a-one-bit"]
    earlier = dataclasses.replace(BIT, step=3, first=1, last=4, open=True)
    assert "at step 3 (interval 1 or earlier to 4)" in floor_verdict(floor(earlier))
    assert "it is the size from step 5 on that is the same" in floor_notes(floor(earlier))[0]


def test_larger_smaller_and_unlike() -> None:
    assert floor_verdict(floor(APART)) == (
        "b is farther from a than one bit leads, by a factor of 230 (interval 120 to 500; median "
        "over steps 5 to 39, against one bit changed at step 5)."
    )
    assert "a smaller --at would allow" in floor_notes(floor(APART))[0]
    less = Placing("smaller", (5, 5), factor=0.01, factor_low=0.005, factor_high=0.02, tried=0)
    assert floor_verdict(floor(less)).startswith(
        "b is nearer to a than one bit leads, 0.0100 times as far (interval 0.00500 to 0.0200; "
        "median at step 5"
    )
    assert "none of them explains it" in floor_notes(floor(less))[0]
    other = dataclasses.replace(APART, outcome="unlike", above=12, below=9)
    assert "at 12 and nearer at 9" in floor_verdict(floor(other))
    nothing = Placing("larger", (9, 39), above=31, compared=31, tried=0)
    gone = [twin(0, [1e-9, *[0.0] * 34], absorbed=6), twin(1, [1e-9, *[0.0] * 34], absorbed=6)]
    found = floor(nothing, twins=gone)
    assert "which leaves nothing there: all 2 twins were absorbed" in floor_verdict(found)
    assert "2 of 2 twins absorbed: from step 6, 6 on" in floor_notes(found)


def test_the_control_differs() -> None:
    control = curve("a-one-bit/control", [0.0] * 7 + [v / 4 for v in GROWTH[2:35]], 7)
    found = floor(Placing("nondeterministic"), twins=[], at=None, band=FanBand(), control=control)
    assert floor_verdict(found) == (
        "Nothing can be said about one bit, since the control, which is the command of a run again "
        "without a change, differs from it by itself from step 7 on; after step 39 b is 4.00 times "
        "as far from a as the control is."
    )
    (table,) = floor_tables(found)
    assert table.columns == ["Step", "Runs", "Control"]
    page = render_floor(found)
    assert problems(page) == []
    assert page.count("<svg") == 1


def test_no_divergence() -> None:
    same = Drift("a", [curve("b", [0.0] * 3, None)], "ndp-sketch-1", 3, 9, 0.07, 0.95)
    found = floor(Placing("equal"), drift=same, twins=[], control=None, at=None, folder=None)
    assert floor_verdict(found) == (
        "No divergence: b has the sketches of a at all 3 steps compared."
    )
    tiny = Drift("a", [curve("b", [0.0, 1e-16], 1)], "ndp-sketch-1", 3, 9, 0.07, 0.95)
    below = dataclasses.replace(found, drift=tiny, placing=Placing("below"))
    assert floor_verdict(below).startswith("No divergence beyond what a sketch resolves")
    broken = Drift("a", [curve("b", [0.0, math.nan], 1)], "ndp-sketch-1", 3, 9, 0.07, 0.95)
    lost = dataclasses.replace(found, drift=broken, placing=Placing("not finite"))
    assert "from step 1 on the distance of the two runs is not finite" in floor_verdict(lost)
    for one in (found, below, lost):
        assert problems(render_floor(one)) == []


def test_runs_and_twins_that_are_not_finite() -> None:
    found = floor(BIT, twins=[twin(0, [1e-9, math.nan], broken=6), twin(1, GROWTH[:9])])
    found.observed.relative[-1] = math.nan
    notes = " ".join(floor_notes(found))
    assert "from step 39 on the distance of the two runs is not finite" in notes
    assert "1 of 2 twins became not finite: from step 6 on" in notes
    assert problems(render_floor(found)) == []


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_has_a_sentence_and_a_page(outcome: str) -> None:
    found = floor(dataclasses.replace(APART, outcome=outcome, step=None, reason="too few"))
    assert floor_verdict(found).endswith(".")
    page = render_floor(found)
    assert problems(page) == []
    assert page == render_floor(found)


def test_json_and_tables() -> None:
    found = floor_json(floor(BIT))
    assert found["placing"]["step"] == 5
    assert found["twins"][1]["reused"] is True
    assert len(found["band"]["ages"]) == 35
    steps, twins = floor_tables(floor(BIT))
    assert len(steps.rows) == 20
    assert steps.rows[0] == ["0", "0", "", "", ""]
    assert steps.rows[-1][0] == "39"
    assert [row[-1] for row in twins.rows] == ["run now", "reused"]
    assert "The band and the interval are of 2 twins" in " ".join(floor_limits(floor(BIT)))


def test_nothing_of_a_strangers_text_is_markup() -> None:
    evil = "<script>alert(1)</script>"
    page = render_floor(floor(BIT, evil, warnings=[evil]))
    assert "<script" not in page
    assert problems(page) == []


def test_the_fan_lies_where_the_bit_would_have_been_changed() -> None:
    here, moved = (fan_plot(floor(one), "k") for one in (BIT, dataclasses.replace(BIT, step=2)))
    assert here is not None
    assert here != moved
    assert "nan" not in here.lower()
