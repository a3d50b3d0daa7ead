import re

import difference_examples as examples
import page_checks
import pytest

from nondet_probe.records.difference import StepCount
from nondet_probe.records.trace import SETUP
from nondet_probe.report.difference_strip import strip

PAGE = "<!DOCTYPE html>\n<html><body><h1>a</h1>{}</body></html>"


def told(text):
    """What each rectangle tells when pointed at."""
    return re.findall(r"<g><title>(.*?)</title>", text)


def heights(text, colour):
    return [
        float(height)
        for height, of in re.findall(r'height="([\d.]+)" style="fill: var\(--(\w+),', text)
        if of == colour and float(height) != 12
    ]


@pytest.mark.parametrize("case", examples.CASES)
def test_every_case_is_a_sound_picture_or_none(case):
    steps = examples.CASES[case].steps
    text = strip(steps, "k")
    assert (text is None) == (not steps)
    if text is not None:
        assert page_checks.problems(PAGE.format(text)) == []


def test_nothing_counted_is_no_picture():
    assert strip([], "k") is None
    assert strip([StepCount(0, "forward")], "k") is None


def test_one_rectangle_a_phase_of_a_step_and_one_for_the_setup():
    text = strip(examples.grid(steps=3, first=1), "k")
    assert len(told(text)) == 3 * 5 + 1
    assert told(text)[0] == "setup: 12 records: 12 equal"
    assert "step 0, data: 4 records: 4 equal" in told(text)
    assert "step 1, backward: 305 records: 265 equal, 39 propagated and 1 where it began" in told(
        text
    )


def test_shares_fill_the_rectangle_and_none_vanishes():
    text = strip([StepCount(0, "forward", equal=500, propagated=500)], "k")
    (equal,), (propagated,) = heights(text, "good"), heights(text, "twin")
    assert propagated == equal / 2
    text = strip([StepCount(0, "forward", equal=10**6, roots=1)], "k")
    assert heights(text, "bad") == [4.0]
    text = strip([StepCount(0, "forward", propagated=10**6, only_b=1, roots=1)], "k")
    parts = [heights(text, name) for name in ("twin", "control", "bad")]
    assert sum(map(sum, parts)) == pytest.approx(28.0, abs=0.02)
    assert heights(text, "good") == []


def test_the_pin_says_where_it_begins():
    assert ">begins in step 17, backward<" in strip(examples.grid(), "k")
    # Its step is named although it shares a column with others.
    assert ">begins in step 900, backward<" in strip(examples.LONG.steps, "k")
    assert "begins in" not in strip(examples.EQUAL.steps, "k")
    assert ">begins in setup<" in strip([StepCount(SETUP, "data", roots=1)], "k")
    one_sided = [StepCount(0, "data", equal=1), StepCount(0, "forward", equal=1, only_a=1)]
    assert ">begins in step 0, forward<" in strip(one_sided, "k")


def test_many_steps_share_columns():
    text = strip(examples.LONG.steps, "k")
    cells = told(text)
    assert len(cells) <= 180 * 5 + 1
    assert sum(
        int(re.search(r": ([\d\u202f]+) record", c)[1].replace("\u202f", "")) for c in cells
    ) == (sum(found.equal + found.roots + found.propagated for found in examples.LONG.steps))
    assert "steps 0 to 5, data: 24 records: 24 equal" in cells


def test_gaps_of_a_schedule_are_no_columns():
    text = strip([StepCount(5, "forward", equal=1), StepCount(900, "forward", equal=1)], "k")
    assert len(told(text)) == 2
    assert ">900<" in text


def test_the_legend_names_what_there_is():
    def legend(steps):
        return set(re.findall(r">([a-z ]+): [\d\u202f]+<", strip(steps, "k")))

    assert legend(examples.EQUAL.steps) == {"equal"}
    assert legend(examples.grid()) == {"equal", "where it began", "propagated"}
    assert legend([StepCount(0, "data", 1, only_a=1, only_b=2)]) == {"equal", "only in one run"}


def test_a_foreign_phase_is_escaped():
    text = strip([StepCount(0, "<b>", equal=1)], "k")
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
