import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import difference_examples as examples
import page_checks
import pytest
from report_examples import HOSTILE

from nondet_probe.report import difference_tables as tables
from nondet_probe.report.difference_json import difference_json
from nondet_probe.report.difference_page import render_difference
from nondet_probe.report.difference_words import difference_verdict
from nondet_probe.report.trace_words import digest_phrase


@pytest.fixture(scope="module")
def pages():
    return {name: render_difference(case) for name, case in examples.CASES.items()}


@pytest.mark.parametrize("case", examples.CASES)
def test_page_is_well_formed_and_self_contained(pages, case):
    assert page_checks.problems(pages[case]) == []


@pytest.mark.parametrize("case", examples.CASES)
def test_the_verdict_is_the_heading(pages, case):
    page = page_checks.Page(pages[case])
    assert page.heading == difference_verdict(examples.CASES[case])


@pytest.mark.parametrize("case", examples.CASES)
def test_every_page_prints_coverage_cost_and_bound(pages, case):
    text = "".join(page_checks.Page(pages[case]).text)
    assert "not covered" in text
    assert "128 bits" in text
    if examples.CASES[case].meta_a is not None:
        assert "cost of the recording" in text


def test_badge(pages):
    for case, words in (
        ("equal", 'class="verdict clean">\n<p class="badge">Equal'),
        ("digests", 'class="verdict nondeterministic">\n<p class="badge">Different'),
        ("nothing", 'class="verdict unknown">\n<p class="badge">No verdict'),
        ("unfinished", 'class="verdict unknown">\n<p class="badge">Not finished'),
    ):
        assert words in pages[case]


def test_hostile_text_stays_text(pages):
    text = pages["hostile_traces"]
    page = page_checks.Page(text)
    assert page.problems == []
    assert page.count["script"] == page.count["img"] == 0
    # A module of this name, and a file with quotes of both kinds.
    assert "<script>alert(1)</script>" in "".join(page.text)
    assert 'it\'s "here".py' in "".join(page.text)
    assert "<script" not in text
    assert "".join(page.text).count(HOSTILE) > 10
    assert "{{ 7*7 }}" in text


def test_an_unescaped_module_name_would_be_seen(pages):
    planted = pages["hostile_traces"].replace("&lt;script&gt;alert(1)", "<script>alert(1)", 1)
    assert page_checks.problems(planted)


def test_same_difference_same_bytes_in_another_process(pages):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import difference_examples as e; "
        "from nondet_probe.report.difference_page import render_difference; "
        "sys.stdout.buffer.write(render_difference(e.MANY).encode())"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=True,
    )
    assert again.stdout.decode() == pages["many"]


def test_sections_that_have_nothing_to_say_are_left_out(pages):
    def titles(case):
        return re.findall(r"<h2>(.*?)</h2>", pages[case])

    assert titles("equal") == [
        "The run at a glance",
        "What was seen, and how far to trust it",
        "The two runs",
        "Words used here",
    ]
    assert titles("many") == [
        "The run at a glance",
        "Where it began",
        "What the runs differ in themselves",
        "What could not be aligned",
        "What was seen, and how far to trust it",
        "The two runs",
        "Words used here",
    ]
    assert "The run at a glance" not in titles("bare")


def test_environments_stand_side_by_side():
    other = examples.meta(environment={"machine": {"cpu": "Another CPU"}})
    text = render_difference(dataclasses.replace(examples.DIGESTS, meta_b=other))
    told = "".join(page_checks.Page(text).text)
    assert "Example CPU 9000 at 3.1 GHz" in told
    assert "Another CPU" in told
    assert "not there" in told


@pytest.mark.parametrize("case", examples.CASES)
def test_every_row_of_every_table_has_a_printable_cell_for_every_column(case):
    found = examples.CASES[case]
    shown = [*tables.summary(found), tables.roots(found), tables.not_aligned(found)]
    for table in [*shown, tables.changes(found), tables.runs(found), tables.cause(found)]:
        for row in table.rows:
            assert len(row) == len(table.columns)
            text = "".join(row).replace("\n", "").replace("\u202f", "")
            assert text.isprintable()


def test_a_root_names_step_module_line_and_both_digests():
    (row,) = tables.roots(examples.DIGESTS).rows
    assert row == [
        "step 17\nbackward",
        "aten.index_put_\nencoder.pos_bias",
        "x/project/model.py:41",
        "the same",
        "a: 100000000000\nb: f00000000000",
    ]
    (row,) = tables.roots(examples.INFERRED).rows
    assert row[3] == "the same\ninferred"
    (row,) = tables.roots(examples.LOSS).rows
    assert row[4].startswith("a: 2.3125 (")
    (row,) = tables.roots(examples.ORDER).rows
    assert row[4] == "a: 000000000000"


def test_long_tables_say_what_they_leave_out():
    assert tables.roots(examples.MANY).title == "Roots (the first 50; 47 more)"
    assert len(tables.roots(examples.MANY).rows) == 50
    last = tables.not_aligned(examples.MANY, 60).rows[-1]
    assert last == ["10 others", str(sum(range(1, 11))), "0"]
    assert tables.changes(examples.MANY, 60).rows[-1][0] == "10 other settings"


def test_coverage_of_both_runs_stands_side_by_side():
    rows = tables.coverage(examples.NOT_COVERED).rows
    assert rows[0] == ["records", "12\u202f345", "10"]
    assert rows[-2:] == [
        ["not covered: a captured graph", "0", "2"],
        ["not covered: another thread", "0", "1"],
    ]


def test_digests_are_the_first_of_the_hex_digits():
    assert digest_phrase((-1, 0)) == "f" * 12
    assert digest_phrase((1, 0)) == "0" * 12
    assert digest_phrase(None) == "none"


ISSUE = ("equal", "step", "phase", "kind", "op", "module", "line", "rank", "inputs_equal",
         "propagated", "not_aligned", "coverage")  # fmt: skip


@pytest.mark.parametrize("case", examples.CASES)
def test_json_holds_what_a_program_needs(case):
    found = difference_json(examples.CASES[case])
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert set(ISSUE) <= found.keys()
    assert found["verdict"] == difference_verdict(examples.CASES[case])
    assert len(found["roots"]) <= found["root_count"]


def test_json_of_the_first_difference():
    found = difference_json(examples.DIGESTS)
    assert {name: found[name] for name in ISSUE[:-2]} == {
        "equal": False,
        "step": 17,
        "phase": "backward",
        "kind": "op",
        "op": "aten.index_put_.default",
        "module": "encoder.pos_bias",
        "line": 41,
        "rank": 0,
        "inputs_equal": True,
        "propagated": 214,
    }
    assert found["coverage"]["a"]["records"] == 12_345
    record = found["roots"][0]["b"]
    assert record["outputs"] == "f000000000000000" + "0000000000000007"
    assert record["inputs"] == f"{123:016x}{456:016x}"
    assert found["not_aligned"] == {"a": {}, "b": {}}
    assert found["steps"][0] == {
        "step": -1,
        "phase": "setup",
        "equal": 12,
        "roots": 0,
        "propagated": 0,
        "only_a": 0,
        "only_b": 0,
    }
