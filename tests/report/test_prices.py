"""A price list in words, tables and on its page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from page_checks import Page, problems
from price_examples import ENVIRONMENT, price_rows, rows_of

from nondet_probe.records.figures import Row, Spread
from nondet_probe.report.pricepage import render_prices
from nondet_probe.report.priceplots import rate_plot, speed_plot
from nondet_probe.report.prices import grouped, overview, price_verdict, size_name
from nondet_probe.report.pricetables import price_table, short_price_table, variability_line

ROWS = price_rows()
SHAPES = {"sum": "n elements & all", "index_add": "into 1000 rows"}


def page(rows: list[Row], interrupted: bool = False) -> str:
    return render_prices(rows, ENVIRONMENT, SHAPES, "2026-11-23T12:00:00", interrupted)


def wobbling() -> list[Row]:
    """As ROWS, but fixed_order gave two results once."""
    place = next(
        i
        for i, row in enumerate(ROWS)
        if (row.provider, row.metric) == ("fixed_order", "distinct results")
    )
    return [*ROWS[:place], replace(ROWS[place], spread=Spread.single(2, 20)), *ROWS[place + 1 :]]


def test_groups_keep_the_order_of_their_rows() -> None:
    groups = grouped(ROWS)
    assert [(g.op, g.n, g.threads) for g in groups[:3]] == [
        ("sum", 1000, 1),
        ("sum", 1000, 2),
        ("sum", 1_000_000, 1),
    ]
    assert groups[0].providers()[:2] == ["torch", "torch deterministic"]


def test_verdict() -> None:
    assert price_verdict(ROWS) == "Price list of 2 ops: every variant kept its promise."
    assert "interrupted before its end" in price_verdict(ROWS, interrupted=True)
    assert price_verdict(wobbling()) == (
        "Price list of 2 ops: sum fixed_order (float32, n = 1000) gave 2 different results over 20 "
        "repeats though it promises launch_invariant."
    )


def test_overview_names_the_fastest_variant_that_promises_enough() -> None:
    table = overview(grouped(ROWS))
    assert table.title.endswith("(2 threads)")
    # atomic is the fastest of all, but promises nothing; nothing promises any order but exact.
    assert table.rows[0] == [
        "sum\nfloat32, n = 1M",
        "0.50x",
        "1.50x\ntwo_pass",
        "1.25x\nfixed_order",
        "0.80x\nexact",
        "0.80x\nexact",
    ]
    assert table.rows[1][1] == "raises"


def test_a_row_of_the_table() -> None:
    table = price_table(grouped(ROWS)[0])
    assert table.title == "sum: float32, n = 1000, 1 thread; the machine reads 16.0 GB/s"
    rows = {row[0].partition("\n")[0]: row for row in table.rows}
    assert rows["atomic"] == [
        "atomic\nnone",
        "0.500 µs\n0.450 to 0.550 µs",
        "8.00 GB/s\n50.0% of the stream",
        "2.00x\n1.80x to 2.20x",
        "4.00x\n3.60x to 4.40x",
        "under 1 MiB\n80 bytes a thread",
        "7 of 20",
        "6 ulps",
        "V_s 1.50×10⁻⁷\nV_ermv 1.50×10⁻⁷\nV_c 1.50×10⁻⁷",
    ]
    assert rows["two_pass"][5].startswith("5.00 MB")
    assert rows["torch"][3] == rows["torch deterministic"][4] == "reference"
    assert rows["exact"][8] == "0"


def test_what_raises_says_so() -> None:
    group = grouped(rows_of("index_add", deterministic=False))[0]
    rows = {row[0].partition("\n")[0]: row for row in price_table(group).rows}
    assert rows["torch deterministic"][1] == "raises\nRuntimeError: it <cannot>"
    assert rows["exact"][4] == "raises"
    short = {row[0]: row for row in short_price_table(group).rows}
    assert short["torch, det."][1] == "raises"
    assert short["exact"][5] == "-"


def test_the_table_for_a_terminal_is_narrow() -> None:
    table = short_price_table(grouped(ROWS)[0])
    widths = [max(map(len, cells)) for cells in zip(table.columns, *table.rows, strict=True)]
    assert sum(widths) + 2 * len(widths) <= 80
    assert all("\n" not in cell for row in table.rows for cell in row)
    assert variability_line(grouped(ROWS)[0]).startswith("atomic: V_s 1.50×10⁻⁷, V_ermv")


def test_numbers_of_elements() -> None:
    assert [size_name(n) for n in (999, 1000, 1500, 64_000, 10**6, 3 * 10**9)] == [
        "999",
        "1k",
        "1500",
        "64k",
        "1M",
        "3G",
    ]


def test_pictures() -> None:
    groups = [group for group in grouped(ROWS) if group.op == "sum"]
    speed = speed_plot([g for g in groups if g.n == 1000], "a")
    assert speed is not None
    assert "torch deterministic: 0.50x, 0.50x" in speed
    rate = rate_plot([g for g in groups if g.threads == 2], "b")
    assert rate is not None
    assert "read stream" in rate
    assert rate_plot(groups[:1], "c") is None
    only_failures = [row for row in ROWS if row.spread is None]
    assert speed_plot(grouped(only_failures), "d") is None


@pytest.mark.parametrize("rows", [ROWS, wobbling(), list(rows_of())], ids=["all", "broken", "one"])
def test_the_page_is_whole_and_needs_nothing_else(rows: list[Row]) -> None:
    text = page(rows)
    assert problems(text) == []
    assert text == page(rows)
    assert "A &lt;CPU&gt;" in text
    assert "n elements &amp; all" in text


def test_the_page_says_what_was_found() -> None:
    assert "Every promise kept" in page(ROWS)
    text = page(wobbling())
    assert "1 broken promise" in text
    assert "gave 2 different results" in Page(text).heading
    assert "Interrupted" in page(ROWS[:200], interrupted=True)
    assert len(re.findall(r"<details", page(ROWS))) == 8
    assert len(re.findall(r"<details open", page(ROWS))) == 2


def test_a_page_of_a_gpu_names_it_and_speaks_of_no_threads() -> None:
    rows = [*rows_of(threads=0), *rows_of(n=2000, threads=0)]
    found = ENVIRONMENT | {"device": "cuda:0 (A <GPU>)"}
    html = render_prices(rows, found, SHAPES, "2026-11-23T12:00:00")
    assert not problems(html)
    text = " ".join(" ".join(Page(html).text).split())
    assert "nondet_probe bench on cuda:0 (A <GPU>)" in text
    assert "one GPU" in text
    assert "0 threads" not in text
    assert "timed by events" in text
    assert "timed by events" not in page(ROWS)
