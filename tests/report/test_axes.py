import numpy as np
import pytest

from nondet_probe.report import svg
from nondet_probe.report.axes import Decades, curve, label_ends, step_axis


@pytest.fixture
def axes():
    with svg.drawing():
        yield svg.blank(200).add_subplot()


def test_decades_hold_every_positive_value_and_a_place_for_zero():
    scale = Decades.of(np.array([0.0, 3e-9, np.nan]), np.array([np.inf, 0.2]))
    assert (scale.low, scale.high, scale.empty) == (-9, 0, False)
    assert scale.floor < scale.low


def test_one_value_still_spans_a_decade():
    scale = Decades.of(np.array([1.0]))
    assert (scale.low, scale.high) == (0, 1)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [np.nan, np.inf]])
def test_nothing_positive_leaves_zero_alone_on_the_axis(values, axes):
    scale = Decades.of(np.array(values))
    scale.apply(axes)
    assert scale.empty
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0"]


def test_positions_are_log10_zero_the_floor_and_gaps_where_not_finite():
    scale = Decades(-9, 0, -10.0)
    shown = scale.position(np.array([1e-3, 0.0, -0.0, np.nan, np.inf]))
    assert shown[:3].tolist() == [-3.0, -10.0, -10.0]
    assert np.isnan(shown[3:]).all()


@pytest.mark.parametrize("span", [1, 5, 9, 40, 300])
def test_there_is_room_for_every_tick(span, axes):
    Decades(-span, 0, -span - 1.0).apply(axes)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["0", "1"]
    assert 3 <= len(labels) <= 7


@pytest.mark.parametrize("steps", [1, 2, 3, 100, 12345])
def test_steps_are_whole(steps, axes):
    step_axis(axes, steps)
    assert all(tick == int(tick) for tick in axes.get_xticks())
    assert axes.get_xlim()[0] < 0 < max(steps - 1, 0.5) < axes.get_xlim()[1]


@pytest.mark.parametrize(
    ("values", "alone"),
    [
        ([1.0], [0]),
        ([1.0, 2.0], []),
        ([1.0, np.nan, 2.0, 3.0, np.nan, 4.0], [0, 5]),
        ([np.nan, np.nan], []),
    ],
)
def test_points_that_no_line_reaches_are_marked(values, alone, axes):
    curve(axes, np.array(values), "twin")
    assert axes.lines[0].get_markevery() == alone


def test_labels_of_ends_keep_apart_and_skip_what_is_not_finite(axes):
    label_ends(axes, [(0.5, "b", "run"), (0.5, "a", "twin"), (np.nan, "c", "fit")], gap=0.2)
    placed = {text.get_text(): text.xy[1] for text in axes.texts}
    assert placed == {"a": 0.5, "b": 0.7}


def test_labels_of_ends_stay_below_the_top(axes):
    ends = [(0.75, "c", "run"), (0.75, "b", "twin"), (0.75, "a", "fit"), (0.0, "d", "bad")]
    label_ends(axes, ends, gap=0.25, top=1.0)
    placed = {text.get_text(): text.xy[1] for text in axes.texts}
    assert placed == {"d": 0.0, "a": 0.5, "b": 0.75, "c": 1.0}
