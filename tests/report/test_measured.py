"""The table, the pictures and the words of what the twin measured; the values are test data."""

import re

import numpy as np
import pytest
import report_examples as examples
from page_checks import Page

from nondet_probe.bits import ULP_MAX
from nondet_probe.records import Fate, MeasuredTensor, Predictions
from nondet_probe.report.fates import fate_told, of_predictions
from nondet_probe.report.html import render
from nondet_probe.report.keyfigures import key_figures
from nondet_probe.report.measured import kinds_plot, tensors, ulps_plot
from nondet_probe.report.tables import twin as twin_table

TENSORS = [
    MeasuredTensor("parameter", "conv.weight", 12_345, "float32"),
    MeasuredTensor("buffer", "norm.num_batches_tracked", 1, "int64"),
    MeasuredTensor("optimizer", "momentum_buffer of conv.weight", 12_345, "float32"),
    MeasuredTensor("gradient", "conv.weight", 12_345, "float32"),
]


def measured(steps=3, **changes):
    """Three steps; the gradient is gone after the last, the buffer never differs."""
    shares = np.tile([0.25, 0.0, 0.5, np.nan], (steps, 1))
    distance = np.tile([1e-8, 0.0, 2e-7, np.nan], (steps, 1))
    ulps = np.zeros((steps, 4, 4), dtype=np.uint16)
    ulps[:, 0] = [9259, 3000, 85, 1]
    ulps[:, 2] = [6172, 6000, 173, 0]
    series = examples.twin(steps=steps).series | {
        "kind_distance": distance,
        "tensor_share": shares,
        "tensor_distance": distance,
        "tensor_cosine": np.tile([1.0 - 1e-9, np.nan, -1.0, np.nan], (steps, 1)),
        "tensor_max_ulp": np.tile([ULP_MAX, -1, 3, -1], (steps, 1)),
        "tensor_median_ulp": np.tile([0, -1, 3, -1], (steps, 1)),
        "tensor_ulps": ulps,
    }
    values = {"steps": steps, "tensors": TENSORS, "series": series}
    return examples.twin(**(values | changes))


def test_the_table_has_a_row_for_what_was_there_at_the_end():
    table = tensors(measured())
    assert table.rows == [
        ["conv.weight", "parameter", "25.0% of 12\u202f345", "beyond counting", "equal",
         "1.00\u00d710\u207b\u2078", "1.0\u00d710\u207b\u2079"],
        ["norm.num_batches_tracked", "buffer", "0% of 1", "not in ulps", "", "0", "NaN"],
        ["momentum_buffer of conv.weight", "optimizer", "50.0% of 12\u202f345", "3 ulps",
         "up to 3 ulps", "2.00\u00d710\u207b\u2077", "2.0"],
    ]  # fmt: skip
    assert len(table.columns) == 7


def test_an_older_record_has_neither_table_nor_pictures():
    old = examples.twin()
    assert tensors(old) is kinds_plot(old, "k") is ulps_plot(old, "k") is None
    assert "Every tensor of the state" not in render(examples.run(twin=old))


@pytest.mark.parametrize("plot", [kinds_plot, ulps_plot])
@pytest.mark.parametrize("steps", [1, 3, 2000])
def test_the_pictures(plot, steps):
    text = plot(measured(steps), "k")
    assert text.count("<svg") == text.count("</svg>") == 1
    assert text == plot(measured(steps), "k")
    coordinates = re.findall(r' (?:d|x|y|transform)="([^"]*)"', text)
    assert not [found for found in coordinates if re.search("nan|inf", found, re.IGNORECASE)]


def test_the_kinds_that_there_are_are_named():
    text = kinds_plot(measured(), "k")
    for name in ("weights", "buffers", "optimizer"):
        assert f">{name}</text>" in text
    assert ">gradients</text>" not in text
    assert "buffers 0, optimizer 2.00" in text


def test_the_ulps_picture_tells_the_shares():
    assert "75.0% of the elements with an ulp are equal" in ulps_plot(measured(), "k")
    nothing = measured(tensors=TENSORS[1:2])
    nothing.series["tensor_ulps"] = np.zeros((3, 1, 2), dtype=np.uint8)
    assert ulps_plot(nothing, "k") is None


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        (Fate("absorbed", "why", 3), "absorbed at step 3\nwhy"),
        (Fate("dormant", "why"), "dormant\nwhy"),
        (Fate("growing", "why"), "growing\nwhy"),
        (Fate("saturated", "why", 9, 0.1), "saturated from step 9 on\nwhy"),
        (Fate("not finite", "why", 0), "not finite at step 0\nwhy"),
        (Fate("unknown", "why"), "unknown\nwhy"),
    ],
)
def test_every_fate_has_its_words(fate, told):
    assert fate_told(fate) == told
    rows = dict(twin_table(measured(fate=fate)).rows)
    assert rows["its fate over the whole run"] == told


def test_predictions():
    found = Predictions(360, 0.05, 0.25, 12)
    told = "of 360 examples: 5.00% predicted differently, relative distance of the outputs 0.250, "
    assert of_predictions(found) == told + "at most 12 ulps"
    assert "predicted differently" not in of_predictions(Predictions(1, None, 0.0, None))
    rows = dict(twin_table(measured(predictions=found)).rows)
    assert rows["predictions where it is evaluated"] == of_predictions(found)
    rows = dict(twin_table(measured(no_predictions="because")).rows)
    assert rows["predictions"] == "not compared\nbecause"


@pytest.mark.parametrize(
    ("changes", "value", "more"),
    [
        ({"fate": Fate("saturated", "", 50, 0.125)}, "1.30x a step", "saturated near 0.12 at step"),
        ({"fate": Fate("dormant", ""), "growth": None, "no_growth": "it"}, "dormant", "it"),
        ({"fate": Fate("not finite", "it was nan", 4)}, "not finite", "it was nan at step 4"),
    ],
)
def test_the_key_figure_names_the_fate(changes, value, more):
    figures = key_figures(examples.run(twin=measured(**changes)))
    (figure,) = [each for each in figures if each.label == "One changed bit"]
    assert figure.value == value
    assert more in figure.more


def test_the_page_is_whole_and_hostile_names_do_nothing():
    hostile = [MeasuredTensor(examples.HOSTILE, examples.HOSTILE, 3, examples.HOSTILE)] * 4
    record = examples.run(
        twin=measured(
            tensors=hostile,
            fate=Fate(examples.HOSTILE, examples.HOSTILE),
            no_predictions=examples.HOSTILE,
        )
    )
    text = render(record)
    assert Page(text).problems == []
    assert "<script" not in text
    text = render(examples.run(twin=measured()))
    assert Page(text).problems == []
    assert text.count("<svg") == 6
    assert "Every tensor of the state, after the last step" in text
