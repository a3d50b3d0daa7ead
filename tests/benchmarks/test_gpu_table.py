"""The page of a run on a GPU: every bound with what was found, missed, or is missing."""

from __future__ import annotations

from pathlib import Path

from _gpu_goals import GOALS
from _gpu_parts import FAILED, NOT_HERE, PASSED, Note
from _gpu_table import NOT_YET, bounds_table, page, read_rows

from nondet_probe.records.figures import Row, Spread, append_rows
from nondet_probe.records.prices import COLUMNS_OF_PRICES

README = Path(__file__).parents[2] / "benchmarks" / "README.md"
ORIGIN = {
    "cpu": "A CPU x 16",
    "torch": "2.11.0",
    "nondet_probe": "0.1.0",
    "utc": "2026-11-23T12:00:00",
    "commit": "abc",
    "device": "cuda:0 (NVIDIA H200)",
}


def row(provider: str, metric: str, value: float | None, note: str) -> Row:
    spread = None if value is None else Spread(value, value - 0.125, value + 0.125, 15)
    return Row("sum", provider, "float32", 1 << 26, 0, metric, "x", spread, "", note)


ROWS = [
    row("two_pass", "rate ratio to device copy", 0.5, "256 MB"),
    row("two_pass", "rate ratio to device copy", 0.875, "256 MB"),
    row("two_pass", "rate ratio to device copy", 0.9375, "4 GB"),
    row("exact", "ratio to CUB gpu_to_gpu", None, "256 MB: there are | no headers"),
    row("exact", "time", 2e-4, "256 MB"),
    row("exact", "rate", 4000.0, "256 MB"),
    row("CUB gpu_to_gpu", "time", None, "256 MB: there are no headers"),
    row("exact", "answer", 0.0, "zeros"),
    row("exact", "answers", 1, "zeros"),
    row("CUB gpu_to_gpu", "answer", -3.7e-29, "zeros"),
]


def written(tmp_path: Path, rows: list[Row], **origin: str) -> Path:
    file = tmp_path / "rows.csv"
    append_rows(file, rows, ORIGIN | origin, COLUMNS_OF_PRICES)
    return file


def line(table: list[str], measure: str) -> list[str]:
    (found,) = [one for one in table if one.startswith(f"| {measure} |")]
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_a_bound_is_met_missed_or_not_measured(tmp_path: Path) -> None:
    table = bounds_table(read_rows(written(tmp_path, ROWS)))
    found = line(table, "`sum` float32, `two_pass` to a device copy's rate")
    assert found[1:] == ["0.9", "0.95", "**0.88** (0.75 to 1.00)", "0.94 (0.81 to 1.06)"]
    found = line(table, "`sum` float32, `exact` to CUB `gpu_to_gpu`")
    assert found[3:] == ["not measured: there are / no headers", NOT_YET]
    assert line(table, "`layer_norm` backward, `fixed_order` to `atomic`")[3:] == [NOT_YET] * 2
    assert len(table) == 2 + len(GOALS)


def test_rows_of_older_sources_do_not_count(tmp_path: Path) -> None:
    written(tmp_path, ROWS, commit="old")
    file = written(tmp_path, ROWS[2:3])
    found = line(bounds_table(read_rows(file)), "`sum` float32, `two_pass` to a device copy's rate")
    assert found[3:] == [NOT_YET, "0.94 (0.81 to 1.06)"]


def test_the_page(tmp_path: Path) -> None:
    parts = {
        "device": Note(FAILED, 61.4, ["FAILED tests/cuda/x.py::test | y"]),
        "sanitizer": Note(NOT_HERE, 2, ["there is no compute-sanitizer"]),
        "suite": Note(PASSED, 100),
    }
    rows = read_rows(written(tmp_path, ROWS))
    text = page("NVIDIA H200", "2026-11-23", rows, parts)
    for words in (
        "# NVIDIA H200, 2026-11-23",
        "cuda:0 (NVIDIA H200); A CPU x 16; torch 2.11.0, nondet_probe 0.1.0, commit abc",
        "| device | **failed** | 61 |",
        "- FAILED tests/cuda/x.py::test / y",
        "| sanitizer | not possible here | 2 |",
        "| zeros | 0 | 1 | -3.7e-29 |  |",
        "| sum | float32 | 256 MB | exact | 200 | 4000 |",
        "| sum | float32 | 256 MB | CUB gpu_to_gpu | not measured: there are no headers |  |",
    ):
        assert words in text, words


def test_a_page_without_anything_says_so(tmp_path: Path) -> None:
    text = page("NVIDIA H200", "2026-11-23", read_rows(tmp_path / "none.csv"), {})
    assert "Nothing was measured." in text
    assert text.count(NOT_YET) == 2 * len(GOALS)


def test_the_readme_has_every_bound_and_claims_nothing() -> None:
    """While there is no row of a GPU its table is that of no rows."""
    assert "\n".join(bounds_table([])) in README.read_text("utf-8")
