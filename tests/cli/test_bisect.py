"""`nondet-probe bisect` as real processes, and what it does with the processes that it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nondet_probe.cli import pairs
from nondet_probe.records.codec import decode
from nondet_probe.records.ladder import LADDER_FILE, Ladder
from nondet_probe.records.trace_reader import open_trace

# As a regular expression, each name of a module finds another one.
RACE = """
import torch

torch.set_num_threads(2)
torch.manual_seed(0)


class Table(torch.nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 4))
        self.rows = torch.randint(0, 4, (rows,))
        # Addends of one value would give one sum in every order.
        self.noise = torch.randn(rows, 4)

    def forward(self, x):
        return x + (self.weight[self.rows] * self.noise).mean()  # the racing line


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        parts = {"a": Table(8), "a+": Table(500_000), "aa": Table(8)}
        self.parts = torch.nn.ModuleDict(parts)

    def forward(self, x):
        for part in self.parts.values():
            x = part(x)
        return x


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    optimizer.zero_grad()
    net(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
print("the script's own words")
"""
# What the number of threads changes before anything is computed.
THREADS = """
import torch

net = torch.nn.Dropout()
torch.manual_seed(torch.get_num_threads())
net(torch.ones(64, requires_grad=True)).sum().backward()
"""
AGREES = """
import sys
import torch

print("given", sys.argv[1:], repr(sys.stdin.read()))
torch.manual_seed(0)
torch.randn(4, requires_grad=True).sum().backward()
"""
FAILS = "import sys\nprint('its last \\x1b words')\nsys.exit(7)\n"
WAITS = """
import os
import time
import torch

torch.randn(4, requires_grad=True).sum().backward()
with open("waits", "w") as file:
    file.write(str(os.getpid()))
time.sleep(600)
"""
SCRIPTS = {"race": RACE, "threads": THREADS, "agrees": AGREES, "fails": FAILS, "waits": WAITS}


class Left:
    """The run folder of the only bisect of a script, and the ladder in it."""

    def __init__(self, root: Path, name: str) -> None:
        (self.folder,) = (root / "runs").glob(f"*-bisect-{name}")
        document = json.loads((self.folder / LADDER_FILE).read_text("utf-8"))
        assert document["format"] == "nondet_probe.ladder"
        self.ladder: Ladder = decode(Ladder, document["ladder"])


class Racing(NamedTuple):
    """A search for the race, and the folder it runs in."""

    process: subprocess.Popen[bytes]
    folder: Path


@pytest.fixture(scope="module", autouse=True)
def racing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Racing]:
    """It goes on beside the other tests."""
    folder = tmp_path_factory.mktemp("racing")
    (folder / "race.py").write_text(RACE)
    words = ["-m", "nondet_probe", "bisect", "--html", "race.html", "--json", "--", "race.py"]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=out, stderr=err)
    yield Racing(process, folder)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait()


@pytest.fixture
def scripts(user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    for name, text in SCRIPTS.items():
        (user / f"{name}.py").write_text(text)
    return user


def test_another_environment_of_the_second_runs(call: Any, scripts: Path) -> None:
    done = call("bisect", "--env-b", "OMP_NUM_THREADS=1", "--env-b", "SECRET=x", "--", "threads.py")
    assert done.returncode == 1, done.stderr
    told = " ".join(done.stdout.split())
    assert "the runs differ in torch.get_num_threads (2 in run a, 1 in run b)" in told
    ladder = Left(scripts, "threads").ladder
    assert [rung.level for rung in ladder.rungs] == ["step"]
    # Of variables that may hold anything, only the name is stored.
    assert ladder.variables_b == {"OMP_NUM_THREADS": "1", "SECRET": None}


def test_runs_that_agree(call: Any, scripts: Path) -> None:
    done = call("bisect", "-m", "--", "agrees", "--html", "x")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert told.startswith("Equal: all ")
    assert "the script was run 2 times, in 1 pair" in told
    left = Left(scripts, "agrees")
    assert left.ladder.answer == "1-step"
    assert left.ladder.command == ["-m", "agrees", "--html", "x"]
    log = (left.folder / "1-step" / "b.log").read_text("utf-8")
    assert "given ['--html', 'x'] ''" in log


def test_a_script_that_fails(call: Any, scripts: Path) -> None:
    done = call("bisect", "--json", "--", "fails.py")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "the script left with exit code 7 in run a of 1-step" in done.stderr
    assert "its last \\x1b words" in done.stderr
    assert "Traceback" not in done.stderr
    ladder = Left(scripts, "fails").ladder
    assert ladder.status == "failed"
    assert ladder.failure is not None
    assert "exit code 7" in ladder.failure


def test_ctrl_c_ends_the_script_and_leaves_its_trace(call: Any, scripts: Path) -> None:
    waits = scripts / "waits"
    interrupt_when(waits, signal.SIGINT)
    done = call("bisect", "--", "waits.py")
    assert done.returncode == 130, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(waits.read_text()), 0)
    left = Left(scripts, "waits")
    assert left.ladder.status == "interrupted"
    assert open_trace(left.folder / "1-step" / "a").meta.status == "failed"
    assert not (left.folder / "1-step" / "b").exists()


def interrupt_when(there: Path, number: int) -> None:
    """Send this process a signal once the file has something in it."""

    def kill() -> None:
        while not there.exists() or not there.stat().st_size:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=kill, daemon=True).start()


PATIENT = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(5) if {heeds} else None)
with open(sys.argv[1], "w") as file:
    file.write("here")
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
@pytest.mark.parametrize("heeds", [True, False])
def test_no_child_outlives_the_waiting_for_it(
    number: int,
    raised: type[BaseException],
    heeds: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pairs, "_PATIENCE", 30.0 if heeds else 0.2)
    children: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def started(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(popen(*args, **options))
        return children[-1]

    monkeypatch.setattr(pairs.subprocess, "Popen", started)
    here = tmp_path / "here"

    interrupt_when(here, number)
    before = signal.getsignal(signal.SIGTERM)
    command = [sys.executable, "-c", PATIENT.format(heeds=heeds), str(here)]
    with (tmp_path / "log").open("wb") as log, pytest.raises(raised):
        pairs.finished(command, log.fileno(), dict(os.environ))
    assert children[0].returncode == (5 if heeds else -signal.SIGKILL)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--", "gone.py"], ["no such script: gone.py"]),
        (["--env-b", "OMP_NUM_THREADS", "--", "work.py"], ["NAME=VALUE"]),
        (["--env-b", "=1", "--", "work.py"], ["NAME=VALUE"]),
        (["--html", "work.py", "--", "work.py"], ["work.py: exists", "nothing is ever overwrit"]),
        (["--level", "op", "--", "work.py"], ["--level"]),
        ([], ["SCRIPT"]),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_run(
    call: Any, user: Path, words: list[str], messages: list[str]
) -> None:
    done = call("bisect", *words)
    assert done.returncode == 2
    for message in messages:
        assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (user / "runs").exists()


@pytest.fixture(scope="module")
def raced(racing: Racing) -> Path:
    """The folder of the search, once that is over."""
    assert racing.process.wait(timeout=300) == 1, (racing.folder / "err").read_text("utf-8")
    return racing.folder


def test_a_race_in_one_module_of_several(raced: Path) -> None:
    """Climbed to its line, and executed again."""
    found: dict[str, Any] = json.loads((raced / "out").read_text("utf-8"))
    race = Left(raced, "race")
    line = 1 + RACE.splitlines().index(
        "        return x + (self.weight[self.rows] * self.noise).mean()  # the racing line"
    )
    assert (found["phase"], found["module"], found["line"]) == ("backward", "Net.parts.a+", line)
    assert "index_put" in found["op"]
    assert found["inputs_equal"]
    # Whether it strikes once more is not for the ladder to say; on a busy machine it may not.
    assert found["cause"]["executions"] >= 20
    assert Path(raced, found["cause"]["kept"]) == race.folder / "cause"
    assert Path(raced, found["directory"]) == race.folder
    assert found["a"].endswith(f"{found['ladder']['answer']}/a")
    ladder = race.ladder
    assert (ladder.status, ladder.command) == ("complete", ["race.py"])
    levels = [rung.level for rung in ladder.rungs]
    assert list(dict.fromkeys(levels)) == ["step", "module", "op"]
    assert ladder.rungs[-1].folder == ladder.answer
    assert any(f"the script was run {2 * len(levels)} times" in one for one in found["warnings"])
    assert "index_put" in (raced / "race.html").read_text("utf-8")


def test_each_rung_is_told_and_can_be_looked_at(raced: Path) -> None:
    race = Left(raced, "race")
    lines = [one for one in (raced / "err").read_text("utf-8").splitlines() if ": rung " in one]
    assert lines[0].startswith(
        "nondet-probe: rung 1, level step, the whole run, all names: the runs differ, first in "
    )
    for line, rung in zip(lines, race.ladder.rungs, strict=True):
        assert f"level {rung.level}, " in line
        for name in ("a", "b"):
            folder = race.folder / rung.folder / name
            assert open_trace(folder).meta.level == rung.level
            assert "the script's own words" in folder.with_suffix(".log").read_text("utf-8")
