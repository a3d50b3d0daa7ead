import base64
import io
import re

import numpy as np
import pytest
import report_examples as examples
from PIL import Image

from nondet_probe.report.heatmap import heatmap_plot

TWINS = {name: record.twin for name, record in examples.CASES.items() if record.twin is not None}


def cells(text):
    """The map itself, RGBA [parameters, steps, 4]: the first picture inside of the SVG."""
    found = re.search(r"base64,\s*([A-Za-z0-9+/=\s]+)\"", text)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGBA"))


@pytest.mark.parametrize("case", TWINS)
def test_every_case(case):
    text = heatmap_plot(TWINS[case], "k")
    assert (text is None) == (TWINS[case].steps == 0)


def test_zero_has_no_colour_and_more_is_stronger():
    twin = examples.twin(steps=3, size=2)
    twin.series["param_distance"] = np.array([[0.0, 1e-6], [1e-9, 1e-3], [1.0, np.nan]])
    alpha = cells(heatmap_plot(twin, "k"))[..., 3]
    assert alpha.shape == (2, 3)
    assert alpha[0, 0] == 0
    assert 0 < alpha[0, 1] < alpha[1, 0] < alpha[1, 1] < alpha[0, 2] == 255
    assert alpha[1, 2] == 255


def test_what_is_not_finite_is_grey():
    twin = examples.twin(steps=2, size=1)
    twin.series["param_distance"] = np.array([[np.inf], [np.nan]])
    shown = cells(heatmap_plot(twin, "k"))
    assert (shown == [0x80, 0x88, 0x92, 255]).all()


def test_all_zero_is_all_blank():
    twin = examples.twin(steps=4, size=3)
    twin.series["param_distance"] = np.zeros((4, 3))
    assert not cells(heatmap_plot(twin, "k"))[..., 3].any()


def test_the_changed_parameter_is_named_in_colour():
    text = heatmap_plot(examples.CLEAN.twin, "k")
    (style,) = re.findall(r"<text ([^>]*)>features\.0\.weight<", text)
    assert " 700" in style
    assert "var(--twin" in style
    assert len(re.findall(r">(?:features|classifier)\.", text)) == len(examples.PARAMETERS)


def test_many_parameters_get_as_many_names_as_fit_and_the_changed_one():
    twin = examples.MANY_PARAMETERS.twin
    text = heatmap_plot(twin, "k")
    assert 20 <= text.count("_proj.weight<") <= 32
    assert ">features.0.weight<" in text
    assert cells(text).shape[:2] == (200, 100)


def test_many_steps_are_thinned_out():
    text = heatmap_plot(examples.twin(steps=5000, size=2), "k")
    assert cells(text).shape[1] <= 800


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_nothing_to_draw(shape):
    twin = examples.twin()
    twin.series["param_distance"] = np.zeros(shape)
    assert heatmap_plot(twin, "k") is None
