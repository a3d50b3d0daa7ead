"""`nondet-probe record`: a script runs as it would alone; the trace says what became of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nondet_probe.errors import UsageError
from nondet_probe.probe.recorder.control import CONTROL_FILE, Control, parse_steps
from nondet_probe.records.trace_reader import Trace, open_trace

TRAIN = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def train(steps):
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(torch.rand(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
        print(loss.item().hex(), flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "train.py"


# Lines are written whole, or those of two processes would mix; and the package is the one that this
# test has, also where it is not installed.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path))
}


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=ENVIRONMENT,
    )


def recorded(
    script: Path, *options: str, arguments: tuple[str, ...] = ()
) -> tuple[subprocess.CompletedProcess[str], Trace]:
    out = script.parent / "run"
    entry = ("-m", "nondet_probe", "record", *options, "-o", out, "--")
    done = run(*entry, script, *arguments, folder=script.parent)
    return done, open_trace(out)


def told(text: str) -> str:
    """stderr without the lines of ours."""
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith("nondet-probe: ")
    )


def test_everything_a_script_does_is_its_own(script: Path) -> None:
    # A variable before torch is imported, a thread, a fork, workers that are spawned, arguments.
    script.write_text(
        "import os, sys, threading\n"
        "os.environ['OMP_NUM_THREADS'] = '3'\n"
        f"{TRAIN}\n"
        "class Data(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i): return torch.rand(1) + i\n"
        "if __name__ == '__main__':\n"
        "    print(sys.argv, __file__, sys.path[0], torch.get_num_threads())\n"
        "    for batch in torch.utils.data.DataLoader(\n"
        "        Data(), 2, num_workers=1, multiprocessing_context='spawn'):\n"
        "        print(batch.sum().item().hex())\n"
        "    train(2)\n"
        "    thread = threading.Thread(target=lambda: torch.ones(3).sum())\n"
        "    thread.start(); thread.join()\n"
        "    sys.stdout.flush()\n"
        "    child = os.fork()\n"
        "    train(1)\n"
        "    if child == 0: sys.exit(7)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else None)\n"
        "    print('to stderr', file=sys.stderr)\n"
        "    import atexit; atexit.register(print, 'at exit')\n"
        "    sys.exit(3)\n"
    )
    words = ("--lr", "0.1", "-m", "two words", "--")
    plain = run(script, *words, folder=script.parent)
    done, trace = recorded(script, "--level", "op", arguments=words)
    assert done.returncode == plain.returncode == 3
    # The parent's and the child's lines of training come in any order.
    assert sorted(done.stdout.splitlines()) == sorted(plain.stdout.splitlines())
    assert done.stdout.endswith("7\nat exit\n")
    assert "to stderr\n" in told(done.stderr)
    before, after = (line for line in done.stderr.splitlines() if line.startswith("nondet-probe"))
    assert "expected" in before
    assert "recorded 3 steps" in after
    meta = trace.meta
    assert (meta.status, meta.exit_code, meta.failure) == ("complete", 3, None)
    assert meta.command == [str(script), *words]
    assert {r.step for r in trace.records()} == {-1, 0, 1, 2, 3}
    assert any(reason.startswith("threads that") for reason in meta.coverage.not_covered)
    assert sum(r.site.kind == "batch" for r in trace.records()) == 2


@pytest.mark.parametrize(
    ("end", "code", "status", "failure"),
    [
        ("raise RuntimeError('the loss is NaN')", 1, "failed", "RuntimeError: the loss is NaN"),
        ("os._exit(5)", 5, "complete", None),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "running", None),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "failed", "KeyboardInterrupt"),
    ],
)
def test_however_it_ends(
    script: Path, end: str, code: int, status: str, failure: str | None
) -> None:
    script.write_text(f"import os, signal, sys\n{TRAIN}\ntrain(2)\n{end}\n")
    plain = run(script, folder=script.parent)
    done, trace = recorded(script)
    assert done.returncode == plain.returncode == code
    assert done.stdout == plain.stdout
    # The same traceback, frame by frame.
    assert told(done.stderr) == plain.stderr
    assert (trace.meta.status, trace.meta.failure) == (status, failure)
    killed = {-signal.SIGTERM: None, -signal.SIGINT: 130}
    assert trace.meta.exit_code == killed.get(code, code)
    assert {r.step for r in trace.records()} >= {0, 1}


def test_what_trains_nothing_says_so(script: Path) -> None:
    script.write_text("print('no torch')")
    done, trace = recorded(script)
    assert (done.returncode, done.stdout, len(trace)) == (0, "no torch\n", 0)
    assert trace.meta.caveats == ["the program did not import torch, so there was nothing to see"]
    assert "recorded no whole step" in done.stderr


def test_a_module_and_only_some_steps(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "run.py").write_text(f"{TRAIN}\ntrain(4)\n")
    words = ("record", "-o", "out", "--steps", "1-2", "-m", "--", "mine.run", "-m", "x")
    done = run("-m", "nondet_probe", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    trace = open_trace(tmp_path / "out")
    assert {r.step for r in trace.records()} == {1, 2}
    assert trace.meta.command == ["-m", "mine.run", "-m", "x"]
    assert trace.meta.steps == (1, 2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-o", "taken"), "is not an empty directory"),
        (("--level", "ops"), "did you mean 'op'"),
        (("--steps", "5-2"), "the last step comes before the first"),
        (("--names", "("), "no regular expression"),
        (("-o", "new", "--", "missing.py"), "no such script: missing.py"),
    ],
)
def test_what_cannot_be_is_told_before_the_script_starts(
    script: Path,
    options: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nondet_probe.cli import main

    taken = script.parent / "taken"
    taken.mkdir()
    (taken / "kept").write_text("mine")
    script.write_text("raise SystemExit('it ran')")
    target = () if "missing.py" in options else ("--", str(script))
    monkeypatch.chdir(script.parent)
    monkeypatch.setattr(sys, "argv", ["nondet-probe", "record", *options, *target])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert reason in capsys.readouterr().err
    assert sorted(p.name for p in script.parent.iterdir()) == ["taken", "train.py"]
    assert (taken / "kept").read_text() == "mine"


def test_the_control_file_rules_from_the_next_step(tmp_path: Path) -> None:
    control = Control(tmp_path)
    file = tmp_path / CONTROL_FILE
    record = torch.profiler.ProfilerAction.RECORD

    def wanted(step: int, said: str | None = None) -> bool:
        if said is not None:
            file.unlink(missing_ok=True)
            file.write_text(said + "\n")
        return control(step) is record

    assert control.records_setup
    assert wanted(0)
    assert not wanted(1, "off")
    assert not wanted(2)
    assert wanted(3, "on ")
    assert not wanted(4, "steps 6-7")
    assert [wanted(step) for step in (5, 6, 7, 8)] == [False, True, True, False]
    assert not wanted(9, "onn")
    assert not wanted(10, "steps seven")
    assert [sentence.split(": ")[0] for sentence in control.told] == [
        *(f"from step {step}" for step in (1, 3, 4)),
        *(f"at step {step} the file control changed nothing" for step in (9, 10)),
    ]
    assert not Control(tmp_path / "none", (2, 3)).records_setup


def test_steps_are_read() -> None:
    assert parse_steps("120-121") == (120, 121)
    assert parse_steps(" 7 ") == (7, 7)
    for wrong in ("", "a", "1-", "-1", "3-2", "1-2-3"):
        with pytest.raises(UsageError, match="steps"):
            parse_steps(wrong)
