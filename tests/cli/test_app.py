"""The command line as a user types it: exit codes, what lands where, what the messages say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nondet_probe import __version__
from nondet_probe.cli.app import app
from nondet_probe.records import load_run

Call = Callable[..., Any]

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


def only_run(user: Path) -> Path:
    (directory,) = (user / "runs").iterdir()
    return directory


def test_a_clean_checkup(call: Call, user: Path) -> None:
    done = call("checkup", "work.py:plain", "--steps", "12")
    assert done.returncode == 0, done.stderr
    directory = only_run(user)
    record = load_run(directory)
    assert record.status == "complete"
    assert record.rerun is not None
    assert record.rerun.sites == []
    assert record.rerun.neutral is True
    assert record.twin is not None
    assert record.twin.control_identical
    assert record.twin.steps == 12
    assert record.twin_fixed is None
    assert record.cost is not None
    assert (directory / "report.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert "report.html" in done.stdout


def test_nondeterminism_is_exit_code_1_and_named(call: Call, user: Path) -> None:
    done = call("checkup", "work.py:nondeterministic", "--steps", "4", "--out", "here")
    assert done.returncode == 1, done.stderr
    record = load_run(user / "here")
    assert record.rerun is not None
    (site,) = record.rerun.sites
    assert site.op == "cli_test.unstable.default"
    assert site.file is not None
    assert site.file.endswith("work.py")
    assert site.code is not None
    assert "unstable(batch)" in site.code
    assert record.twin is not None
    assert not record.twin.control_identical
    assert record.twin.growth is None
    assert "cli_test.unstable" in done.stdout


def test_one_part_alone(call: Call, user: Path) -> None:
    assert call("rerun", "work.py:plain", "--out", "a").returncode == 0
    assert call("rerun", "work.py:nondeterministic", "--out", "b").returncode == 1
    done = call("twin", "work.py:plain", "--steps", "5", "--param", "2.bias", "--bit", "3",
                "--index", "0", "--out", "c")  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = load_run(user / "c")
    assert record.rerun is None
    assert record.twin is not None
    change = record.twin.change
    assert (change.name, change.index, change.bit) == ("2.bias", 0, 3)


def test_a_twin_under_reproducible_says_so(call: Call, user: Path) -> None:
    done = call("twin", "work.py:plain", "--steps", "3", "--reproducible", "--out", "here")
    assert done.returncode == 0, done.stderr
    record = load_run(user / "here")
    assert record.twin is not None
    assert record.twin.under == "reproducible('launch_invariant')"
    assert "work.py:plain under reproducible" in " ".join(done.stdout.split())
    assert "One changed bit, under reproducible" in (user / "here/report.html").read_text("utf-8")


@pytest.mark.parametrize("command", ["checkup", "rerun", "twin"])
def test_json_is_alone_on_stdout(call: Call, command: str) -> None:
    done = call(command, "work.py:plain", "--steps", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"]
    assert found["record"]["status"] == "complete"
    assert Path(found["report"]).name == "report.html"
    assert "the user's code prints" in done.stderr


def test_without_json_the_user_keeps_stdout(call: Call) -> None:
    assert "the user's code prints" in call("rerun", "work.py:plain").stdout


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [
        ("finite", 3, "batches ran out at step 3"),
        ("not_a_number", 1, "nan"),
        ("raising", 0, "ZeroDivisionError: the user's bug"),
        ("leaving", 1, "SystemExit"),
        ("a_float", 0, "must return the loss as a tensor"),
    ],
)
@pytest.mark.parametrize("command", ["rerun", "twin", "checkup"])
def test_a_failing_run_is_exit_code_3_and_its_record_is_kept(
    call: Call, user: Path, command: str, name: str, step: int, message: str
) -> None:
    done = call(command, f"work.py:{name}", "--steps", "7")
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert f"step {step}" in done.stderr
    assert "Traceback" not in done.stderr
    record = load_run(only_run(user))
    assert record.status == "failed"
    assert record.failed_step == step
    assert (only_run(user) / "report.html").exists()
    if command != "rerun" and step > 0:
        assert record.rerun is not None or record.twin is not None


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["checkup", "digits-cn"], ["digits-cn", "digits-cnn", "snippets-hashed"]),
        (["checkup", "missing.py:f"], ["missing.py"]),
        (["rerun", "work.py:plane"], ["plane", "plain"]),
        (["rerun", "work.py:plain", "--k", "1"], ["k=1", "2"]),
        (["rerun", "work.py:plain", "--seed", "-1"], ["-1", "2**32 - 1"]),
        (["rerun", "work.py:plain", "--threads", "0"], ["0", "at least 1"]),
        (["rerun", "work.py:plain", "--threads", "99999"], ["99999", "at most 1024"]),
        (["rerun", "work.py:plain", "--out", "work.py/x"], ["work.py/x", "Not a directory"]),
        (["twin", "work.py:without_parameters"], ["no floating-point parameter"]),
        (["twin", "work.py:plain", "--steps", "0"], ["0"]),
        (["twin", "work.py:plain", "--param", "0.wieght"], ["0.wieght", "0.weight"]),
        (["twin", "work.py:plain", "--bit", "32"], ["32", "31"]),
        (["twin", "work.py:plain", "--index", "128"], ["128", "127"]),
        (["twin", "work.py:not_a_workload"], ["int", "Workload"]),
        (["no-such-command"], ["no-such-command"]),
        (["twin"], ["TARGET"]),
    ],
)
def test_usage_errors_are_exit_code_2_and_say_what_is_allowed(
    call: Call, user: Path, arguments: list[str], messages: list[str]
) -> None:
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (user / "runs").exists()


def test_nothing_is_overwritten(call: Call, user: Path) -> None:
    (user / "full").mkdir()
    (user / "full" / "record.json").write_text("mine")
    for out in ("full", "work.py"):
        done = call("rerun", "work.py:plain", "--out", out)
        assert done.returncode == 2
        assert "nothing is ever overwritten" in " ".join(done.stderr.split())
    assert (user / "full" / "record.json").read_text() == "mine"


def test_runs_of_the_same_second_do_not_meet(call: Call, user: Path) -> None:
    for _ in range(3):
        assert call("twin", "work.py:plain", "--steps", "1").returncode == 0
    assert len(list((user / "runs").iterdir())) == 3


def test_json_is_alone_even_beside_writes_to_the_descriptor(call: Call) -> None:
    done = call("rerun", "work.py:writing", "--json")
    assert json.loads(done.stdout)["record"]
    assert "written to the descriptor" in done.stderr


def test_ctrl_c_keeps_what_was_found(call: Call, user: Path) -> None:
    done = call("checkup", "work.py:interrupted", "--steps", "30")
    assert done.returncode == 3
    record = load_run(only_run(user))
    assert record.failure == "twin: interrupted"
    assert record.rerun is not None


def test_a_part_that_cannot_be_done_keeps_the_others(call: Call, user: Path) -> None:
    done = call("checkup", "work.py:without_parameters")
    assert done.returncode == 3
    assert "no floating-point parameter" in done.stderr
    assert load_run(only_run(user)).rerun is not None


def test_an_error_of_our_own_is_no_finding(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(record: object, directory: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("nondet_probe.cli.session.save_run", full_disk)
    done = call("rerun", "work.py:plain")
    assert done.returncode == 3
    assert "No space left on device" in done.stderr


def test_env(call: Call) -> None:
    assert "torch" in call("env").stdout
    found = json.loads(call("env", "--json").stdout)
    assert found["versions"]["nondet-probe"] == __version__
    assert found["backends"]["cpu"]["usable"]
    assert found["backends"]["triton"]["reason"]
    assert "backends: triton: reason" in call("env").stdout


def test_version(call: Call) -> None:
    assert call("--version").stdout == f"nondet-probe {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(call: Call, command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    registered = {c.callback.__name__: c.callback for c in app.registered_commands if c.callback}
    assert registered[command].__doc__
