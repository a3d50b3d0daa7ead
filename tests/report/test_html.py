import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import page_checks
import pytest
import report_examples as examples

from nondet_probe.errors import UsageError
from nondet_probe.report import html
from nondet_probe.report.html import render, write_report
from nondet_probe.report.words import verdict


@pytest.fixture(scope="module")
def pages():
    return {name: render(record) for name, record in examples.CASES.items()}


@pytest.mark.parametrize("case", examples.CASES)
def test_page_is_well_formed_and_self_contained(pages, case):
    assert page_checks.problems(pages[case]) == []


@pytest.mark.parametrize("case", examples.CASES)
def test_the_verdict_is_the_heading(pages, case):
    page = page_checks.Page(pages[case])
    assert page.heading == verdict(examples.CASES[case])
    assert pages[case].index("<h1") < pages[case].index("<h2")


WELL = "<!DOCTYPE html>\n<html><body><h1>a</h1>{}</body></html>"

OFFENCES = {
    "unclosed": "<p>a",
    "crossed": "<b><i>a</b></i>",
    "second h1": "<h1>b</h1>",
    "script": "<script>1</script>",
    "stylesheet": '<link rel="stylesheet" href="https://example.org/a.css">',
    "image": '<img alt="a" src="http://example.org/a.png">',
    "protocol-relative": '<img alt="a" src="//example.org/a.png">',
    "relative": '<img alt="a" src="a.png">',
    "import": "<style>@import 'a.css';</style>",
    "css url": "<style>p { background: url('https://example.org/a.png') }</style>",
    "style url": '<p style="background: url(a.png)">a</p>',
    "svg image": '<svg role="img" aria-labelledby="t"><title id="t">t</title>'
    '<image xlink:href="https://example.org/a.png"/></svg>',
    "handler": '<p onclick="1">a</p>',
    "no alt": '<img src="data:image/png;base64,AA">',
    "mute svg": "<svg><title>t</title></svg>",
    "labelled by nothing": '<svg role="img" aria-labelledby="t"></svg>',
    "id twice": '<p id="a">a</p><p id="a">b</p>',
    "dangling use": '<svg role="img" aria-labelledby="t"><title id="t">t</title>'
    '<use href="#gone"/></svg>',
}  # fmt: skip


def test_the_checker_accepts_a_good_page():
    assert page_checks.problems(WELL.format('<p id="a">b<br></p>')) == []


@pytest.mark.parametrize("offence", OFFENCES)
def test_the_checker_sees_a_planted_offence(offence):
    assert page_checks.problems(WELL.format(OFFENCES[offence]))


def test_the_checker_sees_offences_planted_into_a_real_page(pages):
    for offence in OFFENCES.values():
        assert page_checks.problems(pages["clean"].replace("</main>", offence + "</main>"))


def test_hostile_text_stays_text(pages):
    page = page_checks.Page(pages["hostile_run"])
    assert page.problems == []
    assert page.count["script"] == page.count["img"] == 0
    assert "".join(page.text).count(examples.HOSTILE) > 10
    # A template inside of the data is not run.
    assert "{{ 7*7 }}" in pages["hostile_run"]


def test_an_unescaped_string_would_be_seen(pages):
    planted = pages["hostile_run"].replace("&lt;/script&gt;&lt;script&gt;", "</script><script>", 1)
    assert page_checks.problems(planted)


def test_same_record_same_bytes_in_another_process(tmp_path, pages):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import report_examples as e; "
        "from nondet_probe.report.html import render; sys.stdout.buffer.write("
        "render(e.NONDETERMINISTIC).encode())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    again = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert again.stdout.decode() == pages["nondeterministic"]


def test_sections_come_in_order(pages):
    titles = re.findall(r"<h2>(.*?)</h2>", pages["nondeterministic"])
    assert titles == [
        "Nondeterministic ops",
        "What one changed bit does",
        "The same bit under the fix",
        "What determinism costs",
        "What was checked, and how far to trust it",
        "This run's own overhead",
        "Where and how it ran",
        "Words used here",
    ]


def test_the_noise_of_the_run_gets_two_pictures_and_the_fixed_twin_all_four(pages):
    text = pages["nondeterministic"]
    fixed = text.index("The same bit under the fix")
    assert text[:fixed].count("<svg") == 2
    assert text[fixed:].count("<svg") == 5
    assert pages["control_only"].count("<svg") == 4


def test_a_failure_that_the_verdict_tells_whole_is_not_repeated(pages):
    assert "Why it failed" not in pages["failed"]
    long = examples.run(status="failed", failure="step 3 failed: " + "x" * 300)
    assert "Why it failed" in render(long)
    assert "Why it failed" in pages["hostile_run"]


def test_write_report_is_atomic_and_readable(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(examples.ONLY_RERUN, path)
    assert path.read_text(encoding="utf-8") == render(examples.ONLY_RERUN)
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(html.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_report(examples.ONLY_RERUN, path)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_a_missing_library_is_named_with_what_to_install(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"{library}: pip install 'nondet-probe\[report\]'"):
        render(examples.ONLY_RERUN)


def test_importing_the_report_loads_neither_library():
    code = (
        "import sys, nondet_probe.report; "
        "sys.exit(any(name in sys.modules for name in ('jinja2', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_long_words_may_break_and_short_ones_and_figures_may_not():
    broken = html._breakable(
        "see /home/somebody/a_long_name.py:88 in a.b 0.123456789012345678901234"
    )
    assert "/<wbr>home/<wbr>somebody/<wbr>a_<wbr>long_<wbr>name.<wbr>py:88" in broken
    assert "in a.b 0.123456789012345678901234" in broken
    assert html._breakable("<b>" + "x" * 30) == "&lt;b&gt;" + "x" * 30
