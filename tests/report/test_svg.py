import warnings

import matplotlib
import numpy as np
import pytest

from nondet_probe.report import svg


def draw(key="k", **extra):
    with svg.drawing():
        figure = svg.blank(100)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=svg.COLOURS["twin"][0], marker="o")
        axes.imshow(np.zeros((2, 2, 4), dtype=np.uint8), interpolation="none", extent=(0, 1, 0, 1))
        axes.set_title(extra.get("title", "t"))
        return svg.inline_svg(figure, key, "a title", extra.get("description", "what it shows"))


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    bright, dim = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_contrast_knows_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("under", ["paper", "panel"])
def test_every_text_colour_can_be_read(dark, under):
    paper = svg.COLOURS[under][dark]
    texts = {name for name in svg.COLOURS if name not in {"paper", "panel", "rule"}}
    bad = {name for name in texts if contrast(svg.COLOURS[name][dark], paper) < 4.5}
    assert bad == set()
    assert contrast(svg.COLOURS["rule"][dark], paper) < 4.5


def test_no_two_colours_are_one():
    light = [pair[0] for pair in svg.COLOURS.values()]
    assert len(set(light)) == len(light)


def test_colours_are_the_page_s():
    text = draw()
    name, (light, _) = "twin", svg.COLOURS["twin"]
    assert f"stroke: var(--{name}, {light})" in text
    assert light not in text.replace(f"var(--{name}, {light})", "")


def test_text_is_text_and_escaped():
    text = draw(title='<b> & $x$ "#b3450a" 漢 id="figure_1"', description="<i>")
    assert '&lt;b&gt; &amp; $x$ "#b3450a" 漢 id="figure_1"</text>' in text
    assert '<desc id="k-text">&lt;i&gt;</desc>' in text


def test_ids_of_two_figures_differ_and_all_are_used():
    import re

    one, two = draw("one"), draw("two")
    ids = re.findall(r' id="([^"]+)"', one)
    assert set(ids).isdisjoint(re.findall(r' id="([^"]+)"', two))
    assert len(ids) == len(set(ids)) > 2
    assert all(name.startswith("one-") for name in ids)
    for name in ids:
        assert f"#{name}" in one or f"{name}" in one.split(">", 1)[0]
    for name in re.findall(r"#(one-[^\")]+)", one):
        assert name in ids


def test_nothing_of_a_document_remains():
    text = draw()
    assert text.startswith("<svg viewBox=")
    for word in ("<?xml", "<!DOCTYPE", "xmlns", "xlink", "<style", "<metadata", "http"):
        assert word not in text


def test_same_bytes_whatever_the_user_has_set():
    plain = draw()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        styled = draw()
        assert matplotlib.rcParams["font.size"] == 30
    assert styled == plain == draw()


def test_settings_are_put_back_when_drawing_fails():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), svg.drawing():
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before


def test_only_the_warning_about_glyphs_is_silenced():
    with svg.drawing(), pytest.warns(UserWarning, match="another"):
        warnings.warn("another", UserWarning, stacklevel=1)


def test_pyplot_is_not_imported():
    import subprocess
    import sys

    code = (
        "import sys; from nondet_probe.report.svg import blank, drawing, inline_svg\n"
        "with drawing():\n"
        "    figure = blank(50); figure.add_subplot(); inline_svg(figure, 'k', 't', 'd')\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
