"""`nondet-probe twin` with several twins, a fault file, and several steps of the change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.records import load_run
from nondet_probe.records.fault import Fault, save_fault

Call = Callable[..., Any]


def test_several_twins_of_a_fault_at_several_steps(call: Call, user: Path) -> None:
    fault = Fault("gradient", "0.*", seed=4, bit=20)
    save_fault(fault, user / "fault.json")
    done = call("twin", "work.py:plain", "--steps", "24", "--twins", "3", "--inject", "fault.json",
                "--at", "2, 0,5", "--out", "a", "--json", "--threads", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["record"]["twin"]
    assert len(told["twins"]) == 3
    assert [one["step"] for one in told["onset"]] == [0, 2, 5]
    record = load_run(user / "a").twin
    assert record is not None
    assert record.fault == fault
    assert record.series["twins_distance"].shape == (24, 3)
    assert "of site gradient" in str(record.no_conditions)
    page = (user / "a" / "report.html").read_text("utf-8")
    assert "How far apart all twins are" in page
    assert "Does it matter when" in page
    shown = call("show", "a")
    assert "What became of each twin" in shown.stdout
    assert "The same change at each of these steps" in shown.stdout


def test_the_condition_number_is_shown(call: Call, user: Path) -> None:
    done = call("twin", "work.py:plain", "--steps", "20", "--twins", "4", "--out", "a")
    assert done.returncode == 0, done.stderr
    assert "Condition number of training, a lower bound" in done.stdout
    record = load_run(user / "a").twin
    assert record is not None
    assert {(one.of, one.norm) for one in record.conditions} == {
        (of, norm) for of in ("weights", "loss") for norm in ("L2", "element")
    }
    assert all(one.low is not None and one.twins == 4 for one in record.conditions)


FAULT = {"site": "weight", "name": "0.weight", "index": 1, "bit": 0}


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--twins", "0"], ["twins=0", "from 1 up"]),
        (["--twins", "129"], ["129", "128 elements"]),
        (["--twins", "2", "--index", "3"], ["index=3"]),
        (["--at", "0,ten"], ["'ten' is no step", "0,10,100"]),
        (["--at", ""], ["'' is no step"]),
        (["--at", "0,100", "--steps", "100"], ["no step 100", "0 to 99"]),
        (["--at", "-1"], ["no step -1", "0 to 99"]),
        (["--at", "3,3"], ["step 3 is given twice"]),
        (["--inject", "missing.json"], ["missing.json cannot be read"]),
        (["--inject", "fault.json", "--twins", "2"], ["by its index", "seed"]),
        (["--inject", "fault.json", "--bit", "3"], ["the fault's own"]),
        (["--inject", "late.json", "--steps", "7"], ["step 7 of the fault", "0 to 6"]),
    ],
)
def test_usage_errors(call: Call, user: Path, arguments: list[str], messages: list[str]) -> None:
    for name, more in (("fault", {}), ("late", {"step": 7})):
        save_fault(Fault(**(FAULT | more)), user / f"{name}.json")
    done = call("twin", "work.py:plain", *arguments)
    assert done.returncode == 2, done.stderr
    for message in messages:
        assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (user / "runs").exists()


def test_what_shows_at_its_step_is_a_run_that_failed(call: Call, user: Path) -> None:
    save_fault(Fault("batch", "5", seed=0, bit=0, step=3), user / "fault.json")
    done = call("twin", "work.py:plain", "--inject", "fault.json", "--out", "a")
    assert done.returncode == 3, done.stderr
    record = load_run(user / "a")
    assert record.failed_step == 3
    assert "nothing was injected" in str(record.failure)
    assert record.twin is not None
    assert (record.twin.steps, record.twin.change) == (3, None)
