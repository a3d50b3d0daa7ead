"""The columns of measured figures are a format: scripts read them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from nondet_probe.records.figures import COLUMNS, Row, Spread, append_rows, origin_of, plain
from nondet_probe.records.prices import COLUMNS_OF_PRICES, broken_promises

ROOT = Path(__file__).parents[2]

GOLDEN = (
    "op,provider,dtype,n,threads,metric,unit,median,q25,q75,rounds,cpu,torch,nondet_probe,utc,"
    "commit"
)
ROW = Row("sum", "exact", "float32", 1000, 2, "time", "s", Spread(1.5e-6, 1e-6, 2e-6, 20))
ORIGIN = {"cpu": "a, b x 2", "torch": "2.13", "nondet_probe": "0.1", "utc": "now", "commit": "c"}


def test_golden_columns() -> None:
    assert ",".join(COLUMNS) == GOLDEN
    assert ",".join(COLUMNS_OF_PRICES) == f"{GOLDEN},guarantee,note,device"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("benchmarks/results/*.csv")), ids=lambda p: p.stem
)
def test_kept_results_have_them(path: Path) -> None:
    assert path.read_text("utf-8").splitlines()[0] == GOLDEN


def test_rows_are_appended_below_one_header(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    append_rows(path, [ROW], ORIGIN)
    append_rows(path, [ROW, ROW], ORIGIN)
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == GOLDEN
    assert (
        lines[1:]
        == ['sum,exact,float32,1000,2,time,s,1.5e-06,1e-06,2e-06,20,"a, b x 2",2.13,0.1,now,c'] * 3
    )


def test_a_row_without_a_figure_and_one_that_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    none = Row("a", "b", "c", 1, 1, "time", "s", None, "none", "raises, and says why")
    infinite = Row("a", "b", "c", 1, 1, "V_s", "1", Spread.single(-math.inf, 5))
    append_rows(path, [none, infinite], ORIGIN, COLUMNS_OF_PRICES)
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["median"], first["rounds"], first["note"]) == ("", "", "raises, and says why")
    assert (second["median"], second["rounds"], second["note"]) == ("-inf", "5", "")
    assert plain(none)["median"] is None
    assert plain(infinite)["rounds"] == 5


def test_spread() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(2.5, 1.75, 3.25, 4)
    with pytest.raises(ValueError, match="got 1"):
        Spread.of([1.0])


@pytest.mark.parametrize(
    ("commit", "text"),
    [(None, "none"), ({"id": "0123456789abcdef", "dirty": True}, "0123456789ab+")],
)
def test_origin(commit: object, text: str) -> None:
    found = {
        "commit": commit,
        "machine": {"cpu": "x", "cpus": 2},
        "versions": {"torch": "t", "nondet-probe": "n"},
    }
    origin = origin_of(found)
    assert (origin["cpu"], origin["commit"]) == ("x x 2", text)
    assert set(origin) == {"cpu", "torch", "nondet_probe", "utc", "commit", "device"}
    assert origin["device"] == "cpu"
    assert origin_of({**found, "device": "x"})["device"] == "x"


def row(metric: str, guarantee: str, median: float | None, note: str = "") -> Row:
    spread = None if median is None else Spread.single(median, 9)
    return Row("sum", "x", "float32", 1, 1, metric, "count", spread, guarantee, note)


@pytest.mark.parametrize(
    ("measured", "broken"),
    [
        (row("distinct results", "none", 9), False),
        (row("distinct results", "", 9), False),  # torch's own promises nothing to us
        (row("distinct results", "run_to_run", 1), False),
        (row("distinct results", "run_to_run", 2), True),
        (row("distinct results", "correctly_rounded", 2), True),
        (row("distinct results over thread counts", "run_to_run", 2), False),
        (row("distinct results over thread counts", "launch_invariant", 2), True),
        (row("distinct results over thread counts", "launch_invariant", 1), False),
        (row("time", "none", None, "raises RuntimeError: x"), True),
        (row("time", "", None, "raises RuntimeError: x"), False),
        (row("time", "none", None, "takes float64"), False),
        (row("time", "exact", 30.0), False),
    ],
)
def test_broken_promises(measured: Row, broken: bool) -> None:
    assert (broken_promises([measured]) == [measured]) is broken
