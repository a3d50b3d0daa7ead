import json

import page_checks
import pytest
from report_examples import HOSTILE

from nondet_probe.records.state_difference import LeafDifference, StateDifference
from nondet_probe.report.difference_json import states_json
from nondet_probe.report.states import (
    leaves_table,
    render_states,
    state_limits,
    states_summary,
    states_verdict,
)

BITS = LeafDifference(
    "conv.weight", "bits", "float32 [3, 4]", "float32 [3, 4]", 12, 3, 2, [0, 3],
    "0.5 (0x3f000000)", "0.25 (0x3e800000)",
)  # fmt: skip


def found(*differences, **changes):
    values = {"tensors": 10, "values": 3, "elements": 1000, "different": 3}
    return StateDifference("a.pt", "b.pt", **(values | changes), differences=list(differences))


CASES = {
    "equal": (found(different=0), "Equal: 10 tensors and 3 plain values have the same bits."),
    "uncovered": (
        found(different=0, not_covered={"x": "sparse"}),
        "No verdict: 10 tensors and 3 plain values have the same bits, but 1 tensor or value could "
        "not be compared.",
    ),
    "one": (
        found(BITS),
        "1 place of 10 tensors and 3 plain values differs: first conv.weight, in 25.0% of its "
        "elements, at most 2 ulps apart.",
    ),
    "many": (
        found(LeafDifference("lr", "value", "0.1", "0.2"), BITS, not_covered={"x": "y", "z": "y"}),
        "2 places of 10 tensors and 3 plain values differ: first lr, which is 0.1 in a and 0.2 in "
        "b; 2 tensors or values could not be compared.",
    ),
    "alone": (
        found(LeafDifference("bn.mean", "only_b", None, "float32 [2]")),
        "1 place of 10 tensors and 3 plain values differs: first bn.mean, which is only in b.",
    ),
    "integers": (
        found(LeafDifference("n", "bits", "int64 []", "int64 []", 1, 1, None, [], "1", "2")),
        "1 place of 10 tensors and 3 plain values differs: first n, in 100% of its elements.",
    ),
    "hostile": (
        StateDifference(
            HOSTILE,
            HOSTILE,
            differences=[LeafDifference(HOSTILE, "bits", HOSTILE, HOSTILE, 2, 1, 1, [0], "1", "2")],
            not_covered={HOSTILE: HOSTILE},
        ),
        None,
    ),
    "long": (found(*[BITS] * 300), None),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict_and_page(case):
    given, told = CASES[case]
    assert told is None or states_verdict(given) == told
    page = page_checks.Page(render_states(given))
    assert page.problems == []
    assert page.heading == states_verdict(given)
    assert page.count["script"] == 0
    assert "collision probability 0" in "".join(page.text)
    assert json.loads(json.dumps(states_json(given), allow_nan=False))["equal"] == given.equal


def test_rows_tell_share_distance_and_both_elements():
    (row,) = leaves_table(CASES["one"][0]).rows
    assert row == [
        "conv.weight\nfloat32 [3, 4]",
        "bits",
        "25.0%\n3 of 12",
        "2 ulps",
        "[0, 3]\na: 0.5 (0x3f000000)\nb: 0.25 (0x3e800000)",
    ]
    row = leaves_table(CASES["many"][0]).rows[0]
    assert row == ["lr", "another value\na: 0.1\nb: 0.2", "", "", ""]
    (row,) = leaves_table(CASES["alone"][0]).rows
    assert row[1] == "only in b\nb: float32 [2]"


def test_bars_are_as_long_as_the_shares():
    text = render_states(CASES["one"][0])
    assert 'width="120.00"' in text  # a quarter of 480
    assert "<svg" not in render_states(CASES["alone"][0])
    assert "shown are the first 40" in render_states(CASES["long"][0])


def test_long_tables_say_what_they_leave_out():
    assert leaves_table(CASES["long"][0]).title == "What differs (the first 200; 100 more)"
    assert states_summary(CASES["equal"][0]) == []
    assert "0 not covered" in state_limits(CASES["equal"][0])[0]
