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
from typing import Any

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

torch.manual_seed(torch.get_num_threads())
torch.randn(4, requires_grad=True).sum().backward()
"""
AGREES = """
import sys
import torch

print("given", sys.argv[1:], repr(sys.stdin.read()))
torch.manual_seed(0)
torch.randn(4, requires_grad=True).sum().backward()
"""
FAILS = "import sys\nprint('its last words')\nsys.exit(7)\n"
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
COMMANDS = {
    "race": ["--html", "race.html", "--json", "--", "race.py"],
    "threads": ["--env-b", "OMP_NUM_THREADS=1", "--env-b", "SECRET=x", "--", "threads.py"],
    "agrees": ["-m", "--", "agrees", "--html", "x"],
    "fails": ["--json", "--", "fails.py"],
}


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nondet_probe", "bisect", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Done:
    """What a command printed, and the ladder that it left."""

    def __init__(self, process: subprocess.Popen[str], root: Path, name: str) -> None:
        self.stdout, self.stderr = process.communicate(timeout=300)
        self.code = process.returncode
        self.told = " ".join(self.stdout.split())
        (self.folder,) = (root / "runs").glob(f"*-bisect-{name}")
        self.ladder = ladder_in(self.folder)


def ladder_in(folder: Path) -> Ladder:
    document = json.loads((folder / LADDER_FILE).read_text("utf-8"))
    assert document["format"] == "nondet_probe.ladder"
    ladder: Ladder = decode(Ladder, document["ladder"])
    return ladder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bisect")
    for name, text in SCRIPTS.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def done(root: Path) -> Iterator[dict[str, Done]]:
    """All commands, run at one time: most of it is the importing of torch."""
    processes = {name: start(root, *words) for name, words in COMMANDS.items()}
    try:
        yield {name: Done(process, root, name) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()


def test_a_race_in_one_module_of_several(done: dict[str, Done], root: Path) -> None:
    """Climbed to its line, executed again, explained."""
    race = done["race"]
    assert race.code == 1, race.stderr
    found: dict[str, Any] = json.loads(race.stdout)
    line = 1 + RACE.splitlines().index(
        "        return x + (self.weight[self.rows] * self.noise).mean()  # the racing line"
    )
    assert (found["phase"], found["module"], found["line"]) == ("backward", "Net.parts.a+", line)
    assert "index_put" in found["op"]
    assert found["inputs_equal"]
    assert found["cause"]["text"].startswith("parallel float atomics at two or more threads")
    assert Path(root, found["cause"]["kept"]) == race.folder / "cause"
    assert Path(root, found["directory"]) == race.folder
    assert found["a"].endswith(f"{found['ladder']['answer']}/a")
    ladder = race.ladder
    assert (ladder.status, ladder.command) == ("complete", ["race.py"])
    levels = [rung.level for rung in ladder.rungs]
    assert list(dict.fromkeys(levels)) == ["step", "module", "op"]
    assert ladder.rungs[-1].folder == ladder.answer
    assert any(f"the script was run {2 * len(levels)} times" in one for one in found["warnings"])
    assert "index_put" in (root / "race.html").read_text("utf-8")


def test_each_rung_is_told_and_can_be_looked_at(done: dict[str, Done]) -> None:
    race = done["race"]
    lines = [one for one in race.stderr.splitlines() if ": rung " in one]
    assert lines[0].startswith(
        "nondet-probe: rung 1, level step, the whole run, all names: the runs differ, first in "
    )
    for line, rung in zip(lines, race.ladder.rungs, strict=True):
        assert f"level {rung.level}, " in line
        for name in ("a", "b"):
            folder = race.folder / rung.folder / name
            assert open_trace(folder).meta.level == rung.level
            assert "the script's own words" in folder.with_suffix(".log").read_text("utf-8")


def test_another_environment_of_the_second_runs(done: dict[str, Done]) -> None:
    threads = done["threads"]
    assert threads.code == 1, threads.stderr
    assert "the runs differ in torch.get_num_threads (2 in run a, 1 in run b)" in threads.told
    assert [rung.level for rung in threads.ladder.rungs] == ["step"]
    # Of variables that may hold anything, only the name is stored.
    assert threads.ladder.variables_b == {"OMP_NUM_THREADS": "1", "SECRET": None}


def test_runs_that_agree(done: dict[str, Done]) -> None:
    agrees = done["agrees"]
    assert agrees.code == 0, agrees.stderr
    assert agrees.told.startswith("Equal: all ")
    assert "the script was run 2 times, in 1 pair" in agrees.told
    assert agrees.ladder.answer == "1-step"
    assert agrees.ladder.command == ["-m", "agrees", "--html", "x"]
    log = (agrees.folder / "1-step" / "b.log").read_text("utf-8")
    assert "given ['--html', 'x'] ''" in log


def test_a_script_that_fails(done: dict[str, Done]) -> None:
    fails = done["fails"]
    assert fails.code == 3
    assert fails.stdout == ""
    assert "the script left with exit code 7 in run a of 1-step" in fails.stderr
    assert "its last words" in fails.stderr
    assert "Traceback" not in fails.stderr
    assert fails.ladder.status == "failed"
    assert fails.ladder.failure is not None
    assert "exit code 7" in fails.ladder.failure


def test_ctrl_c_ends_the_script_and_leaves_its_trace(root: Path) -> None:
    process = start(root, "--", "waits.py")
    try:
        deadline = time.monotonic() + 120
        while not (root / "waits").exists() or not (root / "waits").read_text():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        done = Done(process, root, "waits")
    finally:
        process.kill()
    assert done.code == 130, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int((root / "waits").read_text()), 0)
    assert done.ladder.status == "interrupted"
    assert open_trace(done.folder / "1-step" / "a").meta.status == "failed"
    assert not (done.folder / "1-step" / "b").exists()


PATIENT = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(5) if {heeds} else None)
open(sys.argv[1], "w").close()
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

    def kill() -> None:
        while not here.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=kill, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    command = [sys.executable, "-c", PATIENT.format(heeds=heeds), str(here)]
    with (tmp_path / "log").open("wb") as log, pytest.raises(raised):
        pairs._finished(command, log.fileno(), dict(os.environ))
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
