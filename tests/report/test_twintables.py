"""The tables, pictures and words of several twins; the values are test data."""

import dataclasses

import numpy as np
import pytest
import report_examples as examples
from page_checks import Page

from nondet_probe.bits import BitChange
from nondet_probe.records import Condition, Fate, Followed, Growth, Onset, Predictions
from nondet_probe.records.fault import Fault
from nondet_probe.report.html import render
from nondet_probe.report.keyfigures import key_figures
from nondet_probe.report.spell import number
from nondet_probe.report.tables import overhead
from nondet_probe.report.tables import twin as twin_table
from nondet_probe.report.twinplots import fan_plot, onset_plot
from nondet_probe.report.twintables import conditions, every, fates, onset

STEPS = 40


def several(steps=STEPS, **changes):
    """Three twins: one grows, one is absorbed, one ends in no number."""
    change = BitChange("features.0.weight", 137, 0, "float32", "0xbd1c27f3", "0xbd1c27f2")
    one = examples.twin(steps=steps)
    distance = np.stack([one.series["distance"]] * 3, axis=1)
    distance[min(5, steps) :, 1] = 0.0
    distance[min(30, steps) :, 2] = np.nan
    ordered = np.sort(np.where(np.isnan(distance), np.inf, distance), axis=1)
    values = {
        "steps": steps,
        "twins": [
            Followed(
                change,
                growth=Growth(0.25, 0.2, 0.3, 2, 30, 0.99, 2.77),
                fate=Fate("growing", "it grew"),
                predictions=Predictions(100, 0.125, 0.5, 7),
            ),
            Followed(
                dataclasses.replace(change, index=3),
                5,
                no_growth="the change was absorbed at step 5",
                fate=Fate("absorbed", "no bit", 5),
            ),
            Followed(
                None,
                no_growth="1 steps can be fitted: more",
                fate=Fate("not finite", "it became nan", 30),
                predictions=Predictions(100, None, 0.25, 7),
            ),
        ],
        "conditions": [
            Condition("weights", "L2", 2.0**20, 20.0, 3, 2.0**18, 2.0**17, 2.0**20),
            Condition("weights", "element", 2.0**23, 23.0, 1, 2.0**23),
            Condition("loss", "L2", 0.0, float("-inf"), 2, 0.0, 0.0, 0.0),
        ],
        "onset": [
            Onset(0, [0.5, 0.25, float("nan")], [0.1, None, None], ["growing"] * 2 + ["absorbed"]),
            Onset(10, [1e-3], [None], ["dormant"]),
            Onset(20, no_figures="a copy left the run"),
        ],
        "series": one.series | {"twins_distance": distance, "twins_fan": ordered},
    }
    return examples.twin(**(values | changes))


def test_a_row_for_each_twin():
    table = fates(several())
    assert [row[:4] for row in table.rows] == [
        ["0", "features.0.weight[137]", "growing",
         "grew 1.28x a step (doubling every 2.8 steps)\n95% interval 0.200 to 0.300 a step"],
        ["1", "features.0.weight[3]", "absorbed at step 5", "the change was absorbed at step 5"],
        ["2", "nothing yet", "not finite at step 30", "1 steps can be fitted"],
    ]  # fmt: skip
    assert [row[4:] for row in table.rows] == [
        [table.rows[0][4], "12.5% differ"],
        ["0", "not known"],
        ["NaN", "distance 0.250"],
    ]


def test_the_condition_number():
    rows = conditions(several()).rows
    assert [row[:2] for row in rows] == [
        ["weights after the last step", "over the L2 of all parameters"],
        ["weights after the last step", "over the changed element"],
        ["loss of the last step", "over the L2 of all parameters"],
    ]
    assert [row[3] for row in rows] == ["20.0", "23.0", "none"]
    assert rows[0][2] == number(2.0**20)
    assert rows[0][4] == (f"{number(2.0**18)}\n95% interval {number(2.0**17)} to {number(2.0**20)}")
    assert rows[1][4] == "one twin: no interval"
    assert rows[2][2:] == ["0", "none", "0\n95% interval 0 to 0"]


def test_the_onset():
    first, second, third = onset(several()).rows
    assert first[0] == "0"
    assert first[1] == f"{number(0.5)}\n{number(0.25)} to {number(float('inf'))} over 3 twins"
    assert first[2:] == ["10.0%", "2 growing, 1 absorbed"]
    assert second == ["10", number(1e-3), "not known", "1 dormant"]
    assert third == ["20", "none", "none", "a copy left the run"]


def test_the_key_figures():
    found = {one.label: one for one in key_figures(examples.run(twin=several()))}
    assert found["3 twins"].value == "1 growing, 1 absorbed, 1 not finite"
    assert "median distance at the end" in found["3 twins"].more
    assert found["Bits of the weights"].value == "23.0"


@pytest.mark.parametrize(
    "twin",
    [examples.twin(), several(twins=[]), several(control_identical=False, control_differs_step=1)],
    ids=["one", "none", "noisy"],
)
def test_one_twin_or_a_control_that_differs_has_none_of_them(twin):
    labels = [one.label for one in key_figures(examples.run(twin=twin))]
    assert "3 twins" not in labels
    assert "Bits of the weights" not in labels


def test_a_terminal_shows_them_of_several_only():
    assert [len(table.rows) for table in every(examples.run(twin=several()))] == [3, 3, 3]
    assert [len(table.rows) for table in every(examples.run(twin=examples.twin()))] == [0]
    assert every(examples.run()) == []


def test_the_page():
    text = render(examples.run(command="twin", twin=several()))
    page = Page(text)
    assert "How far apart all twins are" in text
    assert "Does it matter when" in text
    for title in ("What became of each twin", "Condition number of training", "each of these st"):
        assert title in text
    assert page.problems == []
    alone = render(examples.run(command="twin", twin=examples.twin()))
    assert "How far apart all twins are" not in alone
    assert "Does it matter when" not in alone


def test_the_pictures():
    picture = fan_plot(several(), "k")
    assert "3 twins over 40 steps" in picture
    assert "control: exactly 0" in picture
    noisy = several(control_identical=False, control_differs_step=0)
    assert "control: exactly 0" not in fan_plot(noisy, "k")
    assert fan_plot(examples.twin(), "k") is None
    assert fan_plot(several(steps=1, onset=[]), "k") is not None
    picture = onset_plot(several(), "k")
    assert "made at 2 steps" in picture
    assert "predicted otherwise" in picture
    assert "predicted otherwise" not in onset_plot(several(onset=[Onset(3, [0.5], [None])]), "k")
    assert onset_plot(examples.twin(), "k") is None
    assert onset_plot(several(onset=[Onset(3, no_figures="none")]), "k") is None


def test_a_change_that_was_not_made_yet_and_a_fault():
    fault = Fault("gradient", "fc.weight", seed=1, bit=0, step=7)
    rows = dict(twin_table(several(change=None, fault=fault)).rows)
    assert rows["what was changed"].startswith(
        "nothing yet\nasked for: bit 0 of gradient fc.weight"
    )
    rows = dict(twin_table(several(fault=fault)).rows)
    assert rows["what was changed"].endswith("\ngradient, at step 7, before optimizer")
    rows = dict(twin_table(several(onset=[Onset(4, [0.5])])).rows)
    assert rows["what was changed"].endswith("\nbefore step 4")
    rows = dict(twin_table(several(conditions=[], no_conditions="the control differs")).rows)
    assert rows["condition number"] == "no bound\nthe control differs"


def test_the_copies_are_counted():
    # The run; three twins and a control; the same again at two further steps.
    record = examples.run(twin=several())
    assert "13 copies" in overhead(record).rows[0][0]
    assert "3 copies" in overhead(examples.run(twin=examples.twin())).rows[0][0]


def test_hostile_names_are_escaped():
    bad = several(
        twins=[
            Followed(
                BitChange(examples.HOSTILE, 0, 0, "float32", "0x0", "0x1"),
                no_growth=examples.HOSTILE,
                fate=Fate(examples.HOSTILE, examples.HOSTILE),
            )
        ]
        * 3,
        onset=[Onset(0, [1.0], [0.1], [examples.HOSTILE]), Onset(1, no_figures=examples.HOSTILE)],
        conditions=[Condition(examples.HOSTILE, examples.HOSTILE, 1.0, 0.0, 1, 1.0)],
    )
    text = render(examples.run(command="twin", twin=bad))
    assert Page(text).problems == []
    assert "<script" not in text


def test_a_record_that_lacks_what_belongs_together_is_shown_even_so():
    bare = several(onset=[Onset(2)], series=examples.twin(steps=STEPS).series)
    assert onset(bare).rows == [["2", "none", "none", "not recorded"]]
    assert [row[4] for row in fates(bare).rows] == ["none"] * 3
    narrow = several(series=several().series | {"twins_distance": np.ones((STEPS, 1))})
    assert [row[4] for row in fates(narrow).rows] == ["1.00", "none", "none"]
    for twin in (bare, narrow):
        assert Page(render(examples.run(command="twin", twin=twin))).problems == []
