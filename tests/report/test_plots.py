import dataclasses
import re

import numpy as np
import pytest
import report_examples as examples

from nondet_probe.records import Growth
from nondet_probe.report.plots import distance_plot, loss_plot, share_plot

PLOTS = [distance_plot, share_plot, loss_plot]
TWINS = {name: record.twin for name, record in examples.CASES.items() if record.twin is not None}


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("case", TWINS)
def test_every_case_is_drawn_or_has_nothing_to_draw(plot, case):
    text = plot(TWINS[case], "k")
    assert (text is None) == (TWINS[case].steps == 0)
    if text is not None:
        assert text.count("<svg") == text.count("</svg>") == 1
        # A coordinate that is no number would make the browser drop the path.
        coordinates = re.findall(r' (?:d|x|y|transform)="([^"]*)"', text)
        assert len(coordinates) > 10
        assert not [found for found in coordinates if re.search("nan|inf", found, re.IGNORECASE)]


@pytest.mark.parametrize("plot", PLOTS)
def test_a_record_without_series_has_no_picture(plot):
    assert plot(examples.twin(series={}), "k") is None


@pytest.mark.parametrize("plot", PLOTS)
def test_same_record_same_bytes(plot):
    assert plot(examples.twin(), "k") == plot(examples.twin(), "k")


def test_the_control_is_drawn_at_zero_when_identical():
    for plot in (distance_plot, share_plot):
        text = plot(examples.CLEAN.twin, "k")
        assert "control: exactly 0" in text
        assert "var(--control" in text


def test_a_control_that_differs_is_never_drawn_at_zero():
    noisy = examples.noisy_twin(control_differs_step=4)
    text = distance_plot(noisy, "k")
    assert "exactly 0" not in text
    assert "control leaves the run at step 4" in text
    assert "exactly 0" not in share_plot(noisy, "k")
    assert ">control</text>" in share_plot(noisy, "k")


def test_growth_is_drawn_with_its_words_only_when_there_is_one():
    assert "grew 1.30x a step" in distance_plot(examples.CLEAN.twin, "k")
    assert "var(--fit" in distance_plot(examples.CLEAN.twin, "k")
    assert "var(--fit" not in distance_plot(examples.NO_GROWTH.twin, "k")


@pytest.mark.parametrize(
    "growth",
    [
        Growth(0.1, 0.05, 0.2, 90, 4000, 0.9, 7.0),
        Growth(0.1, 0.05, 0.2, 5000, 6000, 0.9, 7.0),
        Growth(-0.1, -0.2, -0.05, 3, 60, 0.9, None),
        Growth(np.nan, np.nan, np.inf, 3, 60, np.nan, None),
    ],
)
def test_a_fit_outside_of_the_series_or_not_finite_is_no_error(growth):
    assert distance_plot(examples.twin(growth=growth), "k") is not None


def test_absorption_and_half_are_marked():
    assert "absorbed at step 12" in distance_plot(examples.ABSORBED.twin, "k")
    assert "half differ after step 19" in share_plot(examples.CLEAN.twin, "k")
    assert "half differ" not in share_plot(examples.ABSORBED.twin, "k")


def test_the_alternative_text_tells_what_the_picture_shows():
    text = distance_plot(examples.CLEAN.twin, "k")
    assert "100 steps: one changed bit grew 1.30x a step" in text
    assert "At the end 98.5% of the elements differ" in share_plot(examples.CLEAN.twin, "k")
    assert "not finite" in loss_plot(examples.twin(series=_only_nan()), "k")


def test_losses_of_different_length_are_cut_to_the_shorter():
    twin = examples.twin()
    twin.series["loss_twin"] = twin.series["loss_twin"][:-1]
    assert "Over 99 steps" in loss_plot(twin, "k")


def test_records_are_not_changed_by_drawing():
    twin = examples.strange_twin()
    before = {name: values.copy() for name, values in twin.series.items()}
    for plot in PLOTS:
        plot(twin, "k")
    for name, values in before.items():
        assert values.tobytes() == twin.series[name].tobytes()
    assert dataclasses.asdict(twin)["steps"] == 30


def _only_nan():
    return {name: np.full(5, np.nan) for name in ("loss", "loss_twin", "distance", "fraction")}
