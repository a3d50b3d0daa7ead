"""`nondet-probe drift A B --against-one-bit` on recorded scripts, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import nondet_probe as ndp
from nondet_probe.cli.twins import Twins
from nondet_probe.errors import UsageError
from nondet_probe.records.fault import Fault, save_fault
from nondet_probe.records.trace_reader import open_sketches

Call = Callable[..., Any]
FORKED = Path(__file__).with_name("forked_drift.py")

TRAIN = """
import os
import sys
import torch
from sklearn.datasets import load_digits
torch.manual_seed(0 if sys.argv[1] != "random" else int.from_bytes(os.urandom(4)))
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[2]), momentum=0.9)
for step in range(int(sys.argv[3])):
    batch = torch.randint(len(x), (32,))
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
    optimizer.step()
"""

RECORD = ["record", "--sketch", "-o"]
PLAIN = ["--", "train.py", "fixed", "0.5", "30"]


def placing(*words: str, twins: int = 3) -> list[str]:
    return ["drift", *words, "--against-one-bit", "--twins", str(twins), "--json"]


@dataclass
class Ran:
    """codes: of the commands; said: what each printed."""

    folder: Path
    codes: dict[str, int]

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8")

    def found(self, name: str) -> dict[str, Any]:
        text = self.said(name)
        found: dict[str, Any] = json.loads(text[text.index("\n{\n") :] if text[0] != "{" else text)
        return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("one_bit")
    (folder / "train.py").write_text(TRAIN)
    save_fault(Fault("weight", seed=77, bit=0, step=8), folder / "fault.json")
    commands = [
        ["a", [*RECORD, "a", *PLAIN]],
        ["b", [*RECORD, "b", "--inject", "fault.json", *PLAIN]],
        ["c", [*RECORD, "c", "--", "train.py", "fixed", "0.5005", "25"]],
        ["r", [*RECORD, "r", "--", "train.py", "random", "0.5", "5"]],
        ["interrupted", placing("a", "b")],
        ["one bit", [*placing("a", "b"), "--html", "b.html"]],
        ["larger", placing("a", "c", "--at", "8", twins=4)],
        ["control", placing("r", "a")],
        ["injected", placing("b", "a")],
        ["beyond", placing("a", "b", "--at", "30")],
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # A process whose OpenMP has begun other threads cannot be forked.
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(FORKED), json.dumps(commands)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return Ran(folder, json.loads(done.stdout.splitlines()[-1]))


def test_a_run_with_another_fault_is_as_one_bit(ran: Ran) -> None:
    assert ran.codes["one bit"] == 1, ran.said("one bit")
    found = ran.found("one bit")
    place = found["placing"]
    assert place["outcome"] == "one bit"
    assert place["first"] <= 8 <= place["last"]
    assert (place["step"], found["at"]) == (8, 8), "the first step at which they are apart"
    assert "with one bit changed at step 8 (interval" in found["verdict"]
    assert (found["control"]["first"], set(found["control"]["relative"])) == (None, {0.0})
    assert found["folder"] == "a-one-bit"
    assert "took" in ran.said("one bit")
    assert (ran.folder / "b.html").read_text("utf-8").count("<svg") == 1


def test_twins_differ_from_each_other_in_one_element(ran: Ran) -> None:
    twins = ran.found("one bit")["twins"]
    assert len({twin["fault"] for twin in twins}) == len(twins) == 3
    for number in range(3):
        with open_sketches(ran.folder / f"a-one-bit/step-8/twin-{number}") as found:
            injected = found.meta.injected
            assert injected is not None
            assert injected.fault == Fault("weight", seed=0, number=number, bit=0, step=8)
            assert found.meta.command == PLAIN[1:]


def test_another_learning_rate_is_larger(ran: Ran) -> None:
    assert ran.codes["larger"] == 1, ran.said("larger")
    found = ran.found("larger")
    assert found["placing"]["outcome"] == "larger"
    assert found["placing"]["factor_low"] > 100
    assert "farther from a than one bit leads, by a factor of" in found["verdict"]
    assert any("25 steps compared; left out are 0" in note for note in found["notes"])


def test_what_is_finished_is_used_again(ran: Ran) -> None:
    assert "interrupted; 2 finished runs stay in a-one-bit" in ran.said("interrupted")
    assert ran.codes["interrupted"] not in (0, 1, 2, 3) or "Traceback" not in ran.said(
        "interrupted"
    )
    assert [twin["reused"] for twin in ran.found("one bit")["twins"]] == [True, False, False]
    assert [twin["reused"] for twin in ran.found("larger")["twins"]] == [True] * 3 + [False]
    left = {path.name for path in (ran.folder / "a-one-bit/step-8").iterdir()}
    assert left == {f"twin-{n}{end}" for n in range(4) for end in ("", ".log")}


def test_a_command_that_does_not_repeat_itself(ran: Ran) -> None:
    assert ran.codes["control"] == 1, ran.said("control")
    found = ran.found("control")
    assert found["placing"]["outcome"] == "nondeterministic"
    assert (found["control"]["first"], found["twins"], found["at"]) == (0, [], None)
    assert "differs from it by itself from step 0 on; after step 4 a is" in found["verdict"]
    assert not (ran.folder / "r-one-bit/step-0").exists()


def test_what_cannot_be_run_is_told_before(ran: Ran) -> None:
    assert ran.codes["injected"] == ran.codes["beyond"] == 2
    assert "b had a fault injected" in ran.said("injected")
    assert "--at 30: a has steps 0 to 29" in ran.said("beyond")
    assert not (ran.folder / "b-one-bit").exists()


def test_a_script_that_is_gone_or_another_one(ran: Ran, call: Call) -> None:
    a, b = str(ran.folder / "a"), str(ran.folder / "b")
    gone = call("drift", a, b, "--against-one-bit")
    assert gone.returncode == 2
    assert "there is no such script from here" in gone.stderr
    Path("train.py").write_text("print('another one')")
    changed = call("drift", a, b, "--against-one-bit")
    assert changed.returncode == 2
    assert "(script_sha256 differ): move that folder away" in changed.stderr


def test_one_process_at_a_time(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran.folder)
    with open_sketches(Path("a")) as found:
        meta = found.meta
    here, there = Twins(Path("a"), meta), Twins(Path("a"), meta)
    refused = pytest.raises(UsageError, match="another nondet-probe runs twins")
    with here.claimed(), refused, there.claimed():
        pass
    with there.claimed():
        assert there.control() == Path("a-one-bit/control")


def recorded(directory: Path, scale: float = 1.0, *, sketch: bool = True) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ndp.record(directory, level="step", model=model, sketch=sketch):
        for _ in range(2):
            optimizer.zero_grad()
            (model(torch.ones(4, 3) * scale).square().mean()).backward()
            optimizer.step()


def test_bad_input(call: Call, user: Path) -> None:
    recorded(user / "a")
    recorded(user / "b", 1.5)
    recorded(user / "same")
    recorded(user / "plain", sketch=False)

    def refused(*words: str) -> str:
        done = call("drift", *words)
        assert (done.returncode, done.stdout) == (2, "")
        return str(done.stderr)

    bit = "--against-one-bit"
    assert "recorded from code" in refused("a", "b", bit)
    assert "plain holds no sketches: record it with" in refused("a", "plain", bit)
    assert "one pair of runs, got 3 runs" in refused("a", "b", "same", bit)
    for count in ("0", "1", "-4"):
        assert f"--twins {count}: at least 2 are needed" in refused("a", "b", bit, "--twins", count)
    assert "--at -1: a has steps 0 to 1" in refused("a", "b", bit, "--at", "-1")
    assert "--at 2: a has steps 0 to 1" in refused("a", "b", bit, "--at", "2")
    assert "is of --against-one-bit, which is not given" in refused("a", "b", "--twins", "3")
    assert not list(user.glob("*-one-bit"))
    # Nothing is run where there is nothing to explain.
    same = call("drift", "a", "same", bit)
    assert same.returncode == 0, same.stderr
    assert "No divergence: same has the sketches of a at all 2 steps" in same.stdout
