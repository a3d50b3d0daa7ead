"""`nondet-probe bench` as a user types it."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.cli.bench import parse_request, parse_size
from nondet_probe.errors import UsageError
from nondet_probe.ops import ops
from nondet_probe.records.figures import Row
from nondet_probe.records.prices import COLUMNS_OF_PRICES

Call = Callable[..., Any]


def rows_in(directory: Path) -> list[dict[str, str]]:
    with (directory / "prices.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_price_list(call: Call, user: Path) -> None:
    done = call("bench", "--ops", "sum", "--sizes", "100,1k", "--repeats", "3", "--out", "here")
    assert done.returncode == 0, done.stderr
    rows = rows_in(user / "here")
    assert list(rows[0]) == COLUMNS_OF_PRICES
    assert {row["n"] for row in rows} == {"100", "1000"}
    assert {"torch", "torch deterministic", "exact", "read stream"} <= {r["provider"] for r in rows}
    assert (user / "here" / "prices.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    for word in ("every variant kept its promise", "fixed_order", "here/prices.html"):
        assert word in done.stdout
    assert "Traceback" not in done.stderr


def test_json_is_alone_on_stdout(call: Call, user: Path) -> None:
    done = call("bench", "--ops", "sum", "--sizes", "10", "--repeats", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["interrupted"] is False
    assert found["environment"]["versions"]["torch"]
    (directory,) = (user / "runs").iterdir()
    assert found["report"] == str(Path("runs") / directory.name / "prices.html")
    assert len(found["rows"]) == len(rows_in(directory))
    assert {"op", "provider", "median", "guarantee", "note"} <= set(found["rows"][0])


def of_one_setting(n: int, distinct: float) -> list[Row]:
    from nondet_probe.records.figures import Spread

    place = ("sum", "exact", "float32", n, 1)
    promise = "correctly_rounded"
    return [
        Row(*place, "time", "s", Spread(1.0, 1.0, 1.0, 2), promise),
        Row(*place, "distinct results", "count", Spread.single(distinct, 2), promise),
    ]


def test_a_broken_promise_is_exit_code_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nondet_probe.cli.bench.price_list", lambda *_: iter([of_one_setting(10, 2)])
    )
    done = call("bench", "--ops", "sum")
    assert done.returncode == 1
    assert "2 different results" in " ".join(done.stdout.split())


def test_ctrl_c_keeps_what_was_measured(
    call: Call, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Any:
        print("an op prints")
        yield of_one_setting(10, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr("nondet_probe.cli.bench.price_list", interrupted)
    done = call("bench", "--ops", "sum", "--out", "here", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["interrupted"] is True
    assert "interrupted" in done.stderr
    assert "an op prints" in done.stderr
    assert len(rows_in(user / "here")) == 2
    assert "Interrupted" in (user / "here" / "prices.html").read_text("utf-8")


def test_ctrl_c_before_anything_leaves_nothing(
    call: Call, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("nondet_probe.cli.bench.price_list", interrupted)
    assert call("bench", "--ops", "sum").returncode == 3
    assert not (user / "runs").exists()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_while_rows_are_written_loses_none(
    call: Call, user: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from nondet_probe.records.figures import append_rows

    def interrupted(*arguments: Any) -> None:
        if moment == "before":
            signal.raise_signal(signal.SIGINT)
        append_rows(*arguments)
        if moment == "after":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(
        "nondet_probe.cli.bench.price_list",
        lambda *_: iter([of_one_setting(10, 1), of_one_setting(20, 1)]),
    )
    monkeypatch.setattr("nondet_probe.cli.bench.append_rows", interrupted)
    done = call("bench", "--ops", "sum", "--out", "here", "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["interrupted"] is True
    assert [row["n"] for row in found["rows"]] == [10, 10]
    assert [row["n"] for row in rows_in(user / "here")] == ["10", "10"]


def test_a_real_interrupt_of_a_real_process(user: Path) -> None:
    command = [sys.executable, "-m", "nondet_probe", "bench", "--ops", "sum", "--out", "here"]
    command += ["--sizes", "10,4M", "--repeats", "200"]
    process = subprocess.Popen(command, cwd=user, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            if (user / "here" / "prices.csv").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3, err.decode()
    assert b"interrupted" in out
    assert {row["n"] for row in rows_in(user / "here")} == {"10"}
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--ops", "summ"], ["unknown op 'summ'", "did you mean 'sum'"]),
        (["--ops", ","], ["--ops", "empty"]),
        (["--dtypes", "float23"], ["float23", "did you mean 'float32'", "bfloat16"]),
        (["--sizes", "1m"], ["'1m'", "did you mean 1M?", "2**20"]),
        (["--sizes", "1Q"], ["'1Q'", "64k"]),
        (["--sizes", "-5"], ["'-5'", "64k"]),
        (["--sizes", "0"], ["0 is not from 1"]),
        (["--sizes", "2**41"], ["not from 1 to 2**40"]),
        (["--sizes", "2**40"], ["GB of memory"]),
        (["--threads", "two"], ["'two'", "at least 1"]),
        (["--threads", "0"], ["'0'", "at most 1024"]),
        (["--device", "cuda"], ["'cuda' cannot be measured", "torch sees no CUDA device"]),
        (["--device", "gpu"], ["'gpu'", "taken are cpu, cuda and cuda:0"]),
        (["--device", "cuda:x"], ["'cuda:x'", "taken are cpu, cuda and cuda:0"]),
        (["--device", "cuda:1", "--threads", "2"], ["--threads 2", "not of cuda:1"]),
        (["--repeats", "1"], ["repeats=1", "at least 2"]),
    ],
)
def test_usage_errors(
    call: Call,
    user: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    messages: list[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = call("bench", *arguments)
    assert done.returncode == 2, done.stderr
    for message in messages:
        assert message in done.stderr
    assert not (user / "runs").exists()


def test_nothing_is_overwritten(call: Call, user: Path) -> None:
    (user / "full").mkdir()
    (user / "full" / "mine").write_text("mine")
    done = call("bench", "--out", "full")
    assert done.returncode == 2
    assert "nothing is ever overwritten" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("text", "size"),
    [("7", 7), ("64k", 64_000), ("1M", 10**6), ("2G", 2 * 10**9), ("2**20", 2**20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5M", "1e6", "2^20", "1 M", "2**999", "9" * 40])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--sizes"):
        parse_size(text)


def test_lists_without_repetitions_and_defaults() -> None:
    request = parse_request(None, "10, 1k,10", "float64,float64", "2,1,2", "cpu", 5)
    assert list(request.ops) == list(ops())
    assert (request.sizes, request.threads) == ([10, 1000], [2, 1])
    assert len(request.dtypes) == 1
