"""`record --against`: the process of a script is stopped where it differs from a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file
from written_traces import GELU, made

from nondet_probe.cli import against
from nondet_probe.probe.recorder.keeping import TENSORS_FILE
from nondet_probe.probe.recorder.live import Outcome
from nondet_probe.probe.recorder.script import OUTCOME_FILE
from nondet_probe.records.codec import encode
from nondet_probe.records.difference import Cause
from nondet_probe.records.trace_reader import open_trace

TRAIN = """
import signal
import sys
import time
import torch

asked, heard = sys.argv[1:], []
if "heeds" in asked:
    signal.signal(signal.SIGINT, lambda *_: heard.append("Ctrl-C"))
torch.manual_seed(0)
table = torch.nn.Embedding(4, 4)
weight = table.weight
optimizer = torch.optim.SGD([weight], lr=0.2 if "rate" in asked else 0.1)
rows = torch.randint(0, 4, (500_000,))
# Addends of one value would give one sum in every order.
noise = torch.randn(500_000, 4)
for step in range(3):
    if "fail" in asked and step == 1:
        sys.exit(7)
    if "waits" in asked and step == 1:
        print("waits", flush=True)
        while not heard:
            time.sleep(0.05)
        time.sleep(2.5)  # a second one would come
        print("heard", len(heard))
    optimizer.zero_grad()
    for _ in range(3):  # that the threads meet in none of them is not to be expected
        if "race" in asked and step == 1:
            loss = (weight[rows] * noise).mean()  # the racing line
        else:
            loss = table(rows[:100]).sum()
        loss.backward()
    print("step", step, "came to its optimizer")
    optimizer.step()
    print("step", step, "is over")
"""
RECORD = """
import runpy, sys
from pathlib import Path
from nondet_probe.probe.recorder.recording import Recording
for out, *command in (["plain", "train.py"], ["racing", "train.py", "race"]):
    sys.argv = command
    with Recording(Path(out), level="op", command=command):
        runpy.run_path(command[0], run_name="__main__")
"""


LINE = (
    TRAIN.splitlines().index("            loss = (weight[rows] * noise).mean()  # the racing line")
    + 1
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces of the script, as it is and with its racing line, on two threads."""
    folder = tmp_path_factory.mktemp("against")
    (folder / "train.py").write_text(TRAIN)
    (folder / "record.py").write_text(RECORD)
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "record.py"], cwd=folder, env=threads, check=True)
    return folder


@pytest.fixture(scope="module", autouse=True)
def signals_end() -> Iterator[None]:
    """Also where all of this runs in the background or under nohup, which ignore some."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


Record = Callable[..., Any]


@pytest.fixture
def record(
    call: Callable[..., Any], user: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> Record:
    """record(*options, script=its arguments), in a folder with `plain`, `racing` and `train.py`."""
    for name in ("plain", "racing", "train.py"):
        (user / name).symlink_to(recorded / name)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def run(*options: str, script: tuple[str, ...] = ()) -> Any:
        return call(*("record", "--level", "op", "-o", "run", *options, "--", "train.py", *script))

    return run


def test_an_equal_run_goes_to_its_end(record: Record) -> None:
    done = record("--against", "plain")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 0 came")
    assert "step 2 is over" in done.stdout
    assert "Equal: all " in done.stdout
    assert open_trace(Path("run")).meta.status == "complete"


def test_a_race_stops_it_at_its_op(record: Record) -> None:
    done = record("--against", "racing", script=("race",))
    assert done.returncode == 1, done.stderr
    assert "step 0 is over" in done.stdout
    assert "step 1 came" not in done.stdout
    told = " ".join(done.stdout.split())
    assert f"Step 1, backward (train.py:{LINE}): aten.index_put received bit-identical" in told
    assert "Cause: parallel float atomics at two or more threads" in told
    assert "run/difference" in told
    kept = load_file(Path("run/difference") / TENSORS_FILE)
    assert kept["output.0"].shape == (4, 4)
    meta = open_trace(Path("run")).meta
    assert (meta.status, meta.exit_code, meta.holds_tensors) == ("stopped", None, True)
    assert "Traceback" not in done.stderr


def test_another_rate_is_told_by_name_as_json_and_as_a_page(record: Record) -> None:
    done = record("--against", "plain", "--json", "--html", "page.html", script=("rate",))
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["step"], told["phase"], told["a"], told["b"]) == (0, "optimizer", "plain", "run")
    assert told["op"] == "optimizer 0, group 0: lr"
    assert "lr" in told["verdict"]
    assert "step 0 came" in done.stderr
    assert "step 0 is over" not in done.stderr
    assert told["report"] == "page.html"
    assert "optimizer 0, group 0" in Path("page.html").read_text()


def test_a_script_that_fails_has_its_own_exit_code(record: Record) -> None:
    done = record("--against", "plain", script=("fail",))
    assert done.returncode == 7, done.stderr
    told = " ".join(done.stdout.split())
    assert "Not finished: all " in told
    assert " so far, but run b broke off before its end" in told
    assert "run b ends in step 1" in told
    assert open_trace(Path("run")).meta.exit_code == 7


Left = Callable[..., Any]


@pytest.fixture
def left(record: Record, monkeypatch: pytest.MonkeyPatch) -> Left:
    """left(exit code, trace=what the script's process makes of it, outcome=...), as JSON: how the
    command ends. The reference has four steps in the end, and only three as it begins."""

    def end(code: int, *, outcome: Outcome | None = None, **trace: Any) -> Any:
        made(Path("reference"), steps=3)

        def run(words: list[str], stdout: int | None) -> int:
            shutil.rmtree("reference")
            made(Path("reference"), steps=4)
            out = Path(json.loads(words[3])["out"])
            if trace:
                made(out, **trace)
            if outcome is not None:
                (out / OUTCOME_FILE).write_text(json.dumps(encode(outcome)))
            return code

        monkeypatch.setattr(against, "_run", run)
        return record("--against", "reference", "--json")

    return end


def test_a_recording_that_breaks_off_is_not_called_equal(left: Left) -> None:
    """As where the disk is full after two steps; the script comes to its end all the same."""
    done = left(0, steps=2, status="failed", failure="full")
    assert done.returncode == 2, done.stderr
    found = json.loads(done.stdout)
    assert (found["equal"], found["unfinished"], found["kind"]) == (False, True, None)
    assert found["compared"] == 16
    assert found["verdict"].startswith("Not finished: all ")


@pytest.mark.parametrize(("own", "code"), [(0, 2), (5, 5)])
def test_a_script_that_leaves_no_trace(left: Left, own: int, code: int) -> None:
    done = left(own)
    assert (done.returncode, done.stdout) == (code, "")
    assert "nothing could be compared: " in done.stderr


DIFFERS: dict[str, Any] = {"steps": 2, "differs": (1, GELU), "status": "stopped"}


@pytest.mark.parametrize(
    ("own", "trace", "outcome", "code"),
    [
        (0, {"steps": 4}, Outcome(), 0),
        # It failed by itself, and what it left shows a difference or does not.
        (7, {"steps": 4, "exit_code": 7}, None, 7),
        (7, {"steps": 4, "differs": (3, GELU), "exit_code": 7}, Outcome(), 7),
        (0, {"steps": 4, "differs": (3, GELU)}, Outcome(), 1),
        # It was stopped, and a thread of it ended the process otherwise.
        (0, DIFFERS, Outcome(1), 1),
        (9, DIFFERS, Outcome(1), 1),
        (9, DIFFERS, Outcome(1, 8, Cause(text="a cause")), 1),
    ],
)
def test_the_exit_code(
    left: Left, own: int, trace: dict[str, Any], outcome: Outcome | None, code: int
) -> None:
    done = left(own, outcome=outcome, **trace)
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)
    assert found["equal"] == (code == 0)
    assert found["compared"] == 8 * trace["steps"]
    assert (found["step"] is None) == ("differs" not in trace)
    if outcome is not None and outcome.cause is not None:
        assert found["cause"] is not None


class Ended(NamedTuple):
    """A recording against `plain` that was sent a signal as its script waited in step 1."""

    code: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def told(self) -> str:
        return " ".join(self.stdout.split())


# Name -> the signal, whether it comes from a terminal, arguments of the script.
SENT = {
    "an interrupt": (signal.SIGINT, False, ()),
    "a request to end": (signal.SIGTERM, False, ()),
    "Ctrl-C that the script heeds": (signal.SIGINT, True, ("heeds",)),
}
# As the first terminal that a session opens, it is the one that Ctrl-C comes from.
AT_TERMINAL = """
import os, sys
os.open(sys.argv[1], os.O_RDWR)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture(scope="module")
def ended(recorded: Path, signals_end: None) -> Iterator[dict[str, Ended]]:
    """All of SENT, side by side."""
    with contextlib.ExitStack() as stack:
        keyboard, terminal = os.openpty()
        stack.callback(os.close, keyboard)
        stack.callback(os.close, terminal)
        processes: dict[str, subprocess.Popen[str]] = {}
        for name, (_, typed, asked) in SENT.items():
            words = ["-m", "nondet_probe", "record", "--level", "op", "-o", name]
            words += ["--against", "plain", "--", "train.py", "waits", *asked]
            if typed:
                words = ["-c", AT_TERMINAL, os.ttyname(terminal), *words]
            processes[name] = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *words],
                    cwd=recorded,
                    env={**os.environ, "OMP_NUM_THREADS": "2"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            stack.callback(_kill, processes[name])
        for name, (number, typed, _) in SENT.items():
            process = processes[name]
            assert process.stdout is not None
            # Reads no more than it must: what comes after is for communicate.
            while process.stdout.readline().strip() not in ("waits", ""):
                pass
            if typed:
                os.write(keyboard, b"\x03")
            else:
                process.send_signal(number)
        found = {}
        for name, process in processes.items():
            out, err = process.communicate(timeout=120)
            found[name] = Ended(process.returncode, out, err, recorded / name)
        yield found


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("name", [name for name, (_, _, asked) in SENT.items() if not asked])
def test_a_signal_ends_the_script_and_what_is_known_is_told(
    name: str, ended: dict[str, Ended]
) -> None:
    """The trace is left as without --against (test_script.py)."""
    found, number = ended[name], SENT[name][0]
    assert found.code == 128 + number, found.stderr
    assert "Not finished: all " in found.told
    assert " so far, but run b broke off before its end" in found.told
    assert "Equal: " not in found.told
    trace = open_trace(found.folder)
    assert {record.step for record in trace.records()} >= {-1, 0}
    told = [line for line in found.stderr.splitlines() if not line.startswith("nondet-probe: ")]
    meta = trace.meta
    if number == signal.SIGINT:
        assert (meta.status, meta.failure, meta.exit_code) == ("failed", "KeyboardInterrupt", 130)
        assert "run b failed (KeyboardInterrupt): it is known up to step 1." in found.told
        assert told[0] == "Traceback (most recent call last):"
        # The script's own frame, and nothing else.
        assert [line for line in told if line.startswith("  File")] == [told[1]]
        assert "train.py" in told[1]
        assert told[-1] == "KeyboardInterrupt"
    else:
        assert (meta.status, meta.failure, meta.exit_code) == ("running", None, None)
        assert "its process was killed: it is known up to step 0." in found.told
        assert told == []


def test_what_a_script_does_upon_ctrl_c_is_its_own(ended: dict[str, Ended]) -> None:
    """The terminal told it; it is told nothing more, and goes on."""
    found = ended["Ctrl-C that the script heeds"]
    assert found.code == 0, found.stderr
    assert "heard 1\n" in found.stdout
    assert "Equal: all " in found.told


# Leaves with the number of signals it had until no more came for a while.
PATIENT = """
import signal, sys, time
number, path = int(sys.argv[1]), sys.argv[2]
heard = []
if signal.getsignal(number) is not signal.SIG_IGN:
    signal.signal(number, lambda *_: heard.append(number))
open(path, "w").close()
for _ in range(int(sys.argv[3])):
    before = len(heard)
    time.sleep(0.5)
    if before and before == len(heard):
        break
sys.exit(len(heard))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_reaches_the_script_whoever_else_has_it(
    number: int, whole_group: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against, "_in_foreground", lambda: False)
    # A script that has it already and ends soon is not told again.
    monkeypatch.setattr(against, "_PATIENCE", 60.0 if whole_group else 0.05)
    before = signal.getsignal(number)
    assert patient(tmp_path / "there", number, whole_group=whole_group) == 1
    assert signal.getsignal(number) is before
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_what_the_terminal_tells_all_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against, "_in_foreground", lambda: True)
    monkeypatch.setattr(against, "_PATIENCE", 0.05)
    assert patient(tmp_path / "Ctrl-C", signal.SIGINT, rounds=2) == 0
    assert patient(tmp_path / "request", signal.SIGTERM) == 1


def test_what_is_ignored_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    monkeypatch.setattr(against, "_PATIENCE", 0.05)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert patient(tmp_path / "there", signal.SIGHUP, rounds=2) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def patient(there: Path, number: int, *, whole_group: bool = False, rounds: int = 240) -> int:
    """How many of these signals a script hears, if this process, or with `whole_group` the script
    too, is sent one. rounds: of half a second, after which it waits no more."""
    children: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        while not there.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)
        if whole_group:
            children[0].send_signal(number)

    words = [sys.executable, "-c", PATIENT, str(number), str(there), str(rounds)]
    popen = subprocess.Popen

    def started(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(popen(*args, **options))
        return children[-1]

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(against.subprocess, "Popen", started)
        code = against._run(words, None)
    killing.join()
    return code


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--against", "plain", "--outputs-only"), "plain was recorded at level op, inputs and"),
        (("--against", "absent"), "against: absent does not exist"),
        (("--against", "train.py"), "train.py is a file; a trace is a folder"),
        (("--against", "plain", "--html", "train.py"), "nothing is ever overwritten"),
        (("--json",), "--html and --json are of the comparison with --against RUN"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_script_starts(
    options: tuple[str, ...], why: str, record: Record
) -> None:
    done = record(*options)
    assert done.returncode == 2
    assert why in done.stderr
    assert not done.stdout
    assert not Path("run").exists()
