"""`nondet-probe diff` and `show` as a user types them, on traces and on files of state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from written_traces import GELU, made

from nondet_probe.cli import waiting

Call = Callable[..., Any]


@pytest.fixture
def traces(user: Path) -> Path:
    made(user / "a")
    made(user / "b", created="2026-01-02T03:05:05+00:00")
    made(user / "c", differs=(2, GELU))
    return user


def test_equal_runs(call: Call, traces: Path) -> None:
    done = call("diff", "a", "b")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Equal: all 32 pairs of records have the same bits" in done.stdout
    for limit in ("not covered: a captured graph", "128 bits", "cost of the recording"):
        assert limit in done.stdout


def test_different_runs(call: Call, traces: Path) -> None:
    done = call("diff", "a", "c", "--html", "out.html")
    assert done.returncode == 1, done.stderr
    told = " ".join(done.stdout.split())
    assert (
        "Step 2, forward of <script>alert(1)</script> (it's.py:12): aten.gelu received "
        "bit-identical inputs and gave different outputs; 10 later records are propagated from it."
    ) in told
    assert "out.html" in done.stdout
    page = (traces / "out.html").read_text("utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "begins in step 2, forward" in page


def test_json_of_a_difference(call: Call, traces: Path) -> None:
    done = call("diff", "a", "c", "--json", "--html", "out.html")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    wanted = {
        "equal": False, "step": 2, "phase": "forward", "kind": "op", "op": "aten.gelu.default",
        "module": "<script>alert(1)</script>", "file": "it's.py", "line": 12, "rank": 0,
        "inputs_equal": True, "propagated": 10, "report": "out.html", "root_count": 1,
        "not_aligned": {"a": {}, "b": {}},
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert found["coverage"]["b"]["not_covered"] == {"a captured graph": 2}
    done = call("diff", "a", "b", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["equal"] is True


def test_a_record_of_one_run_only(call: Call, traces: Path) -> None:
    made(traces / "d", without=(1, GELU))
    done = call("diff", "a", "d", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["kind"], found["step"], found["op"]) == ("order", 1, "aten.gelu.default")
    assert sum(found["not_aligned"]["a"].values()) == 1


def test_another_setting_is_told_before_any_op(call: Call, traces: Path) -> None:
    made(traces / "d", environment={"switches": {"torch.get_num_threads": 1}}, differs=(2, GELU))
    done = call("diff", "a", "d")
    assert done.returncode == 1
    told = " ".join(done.stdout.split())
    assert (
        "Before any op is to blame, the runs differ in torch.get_num_threads (2 in run a, 1 in run "
        "b)"
    ) in told
    assert "It shows first in step 2, forward" in told
    # Traces of different machines: a warning with both descriptions.
    assert "different machines: run a on cpu a CPU; run b on an unknown one" in told


def test_of_several_ranks_the_first_difference_is_told(call: Call, user: Path) -> None:
    for name, step in (("a", None), ("b", 3), ("c", 1)):
        for rank in range(2):
            differs = (step, GELU) if step is not None and rank else None
            made(user / name, differs=differs, rank=rank, world=2)
    found = json.loads(call("diff", "a", "b", "--json").stdout)
    assert (found["equal"], found["step"], found["rank"]) == (False, 3, 1)
    assert "rank 0 was compared too and is equal (32 pairs)" in found["warnings"]
    assert call("diff", "a", "c").returncode == 1
    done = call("diff", "b", "c", "--json")
    assert json.loads(done.stdout)["step"] == 1
    assert call("diff", "a", "a").returncode == 0
    made(user / "alone")
    done = call("diff", "a", "alone")
    assert done.returncode == 2
    assert "a holds ranks 0 and 1, alone holds ranks 0" in done.stderr


def test_the_same_folder_twice_is_said(call: Call, traces: Path) -> None:
    done = call("diff", "a", "a")
    assert done.returncode == 0
    assert "Note: both are the same folder." in done.stdout


def files(user: Path) -> None:
    state = {"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(2)}
    torch.save(state, user / "a.pt")
    save_file(state, user / "a.safetensors")
    state["x"][1, 0] = torch.nextafter(state["x"][1, 0], torch.tensor(9.0))
    torch.save(state, user / "b.pt")


def test_files_of_state(call: Call, user: Path) -> None:
    files(user)
    done = call("diff", "a.pt", "a.safetensors")
    assert done.returncode == 0, done.stderr
    assert "Equal: 2 tensors and 0 plain values have the same bits." in done.stdout
    done = call("diff", "a.pt", "b.pt", "--html", "out.html")
    assert done.returncode == 1, done.stderr
    assert "first x, in 16.7% of its elements, at most 1 ulp" in " ".join(done.stdout.split())
    assert "[1, 0]" in done.stdout
    assert (user / "out.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    done = call("diff", "a.safetensors", "b.pt", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["equal"] is False
    (leaf,) = found["differences"]
    assert (leaf["name"], leaf["first"], leaf["max_ulp"]) == ("x", [1, 0], 1)


def test_what_could_not_be_compared_is_not_called_equal(call: Call, user: Path) -> None:
    torch.save({"x": torch.eye(2).to_sparse(), "y": torch.ones(1)}, user / "a.pt")
    done = call("diff", "a.pt", "a.pt")
    assert done.returncode == 2
    assert "No verdict" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["a", "gone"], ["gone does not exist"]),
        (["a", "a.pt"], ["a is a folder and a.pt is a file", "two traces", ".safetensors"]),
        (["a.pt", "a"], ["a is a folder and a.pt is a file"]),
        (["a", "empty"], ["empty", "not a trace's folder"]),
        (["a", "run"], ["run is the directory of a checkup", "nondet-probe show run"]),
        (["work.py", "work.py"], ["work.py is no state file", ".safetensors"]),
        (["a", "truncated"], ["truncated/rank_00000.sqlite", "truncated, damaged"]),
        (["torn.pt", "a.pt"], ["torn.pt is truncated"]),
        (["a", "c", "--html", "work.py"], ["work.py: exists", "nothing is ever overwritten"]),
        (["a", "c", "--html", "no/out.html"], ["there is no folder no"]),
        (["a"], ["B"]),
    ],
)
def test_what_cannot_be_compared_is_exit_code_2_and_says_why(
    call: Call, traces: Path, arguments: list[str], messages: list[str]
) -> None:
    files(traces)
    (traces / "empty").mkdir()
    (traces / "run").mkdir()
    (traces / "run" / "record.json").write_text("{}")
    (traces / "torn.pt").write_bytes((traces / "a.pt").read_bytes()[:100])
    shutil.copytree(traces / "a", traces / "truncated")
    database = traces / "truncated" / "rank_00000.sqlite"
    database.write_bytes(database.read_bytes()[:5000])
    before = sorted(path.name for path in traces.iterdir())
    done = call("diff", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    for message in messages:
        assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in traces.iterdir()) == before


def test_show_lists_a_trace(call: Call, traces: Path) -> None:
    done = call("show", "c")
    assert done.returncode == 0, done.stderr
    assert "not covered: a captured graph" in done.stdout
    assert "1.33x the plain step" in done.stdout
    lines = done.stdout[done.stdout.index("name, module, line, value") :].splitlines()[1:]
    assert len(lines) == 32
    assert lines[3].endswith("aten.gelu.default in <script>alert(1)</script> at it's.py:12")
    assert lines[5].endswith("loss = 2.0")
    assert lines[2].split()[:5] == ["0", "forward", "op", "0" * 12, "003000000000"]


def test_show_of_one_step(call: Call, traces: Path) -> None:
    done = call("show", "c", "--step", "2", "--json")
    head, *records = map(json.loads, done.stdout.splitlines())
    assert head["meta"]["command"] == ["train.py"]
    assert [record["step"] for record in records] == [2] * 8
    assert records[3]["outputs"] == "0cc0000000100000" + "0" * 16
    assert records[0]["inputs"] is None
    assert records[5]["value"] == 2.0 / 3 + 1e-12
    done = call("show", "c", "--step", "4")
    assert done.returncode == 2
    assert "it has steps 0 to 3" in done.stderr


def test_show_of_a_run_directory(call: Call, user: Path) -> None:
    call("rerun", "work.py:plain", "--out", "here")
    first = call("show", "here")
    assert first.returncode == 0
    assert "No nondeterminism seen in work.py:plain" in " ".join(first.stdout.split())
    assert "here/report.html" in first.stdout
    (user / "here" / "report.html").unlink()
    done = call("show", "here", "--json")
    assert json.loads(done.stdout)["report"] is None
    assert call("show", "here", "--step", "1").returncode == 2
    (user / "here" / "record.json").write_text("{")
    done = call("show", "here")
    assert done.returncode == 2
    assert "record.json is truncated or not JSON" in done.stderr


@pytest.mark.parametrize("name", ["gone", "work.py", "."])
def test_show_of_no_run(call: Call, name: str) -> None:
    done = call("show", name)
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_names_cannot_command_the_terminal(call: Call, user: Path) -> None:
    foul = GELU._replace(name="aten.\x1b[31m\u202e", note="a\nb")
    made(user / "a", extra=foul)
    made(user / "b", extra=foul, differs=(1, foul))
    for done in (call("diff", "a", "b"), call("show", "b")):
        assert "\x1b" not in done.stdout
        assert "\u202e" not in done.stdout
        assert "aten.\\x1b[31m" in done.stdout


def test_exit_codes_and_a_closed_pipe_as_processes(traces: Path) -> None:
    line = f"{sys.executable} -m nondet_probe"
    for command, code in (
        (f"{line} diff a c --json | true; exit ${{PIPESTATUS[0]}}", 1),
        (f"{line} show c | head -1; exit ${{PIPESTATUS[0]}}", 0),
    ):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=traces,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_a_bar_shows_up_for_what_takes_longer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with waiting.Waiting("comparing"):
        pass
    assert "comparing" not in capsys.readouterr().err
    monkeypatch.setattr(waiting, "_PATIENCE", 0.0)
    with waiting.Waiting("comparing") as bar:
        bar._timer.join()
        bar(1, 2)
    out, err = capsys.readouterr()
    assert "comparing" in err
    assert out == ""
