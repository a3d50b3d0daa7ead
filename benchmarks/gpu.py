"""`make gpu`: build, test, check and measure on the GPU of this machine, in eight minutes.

python benchmarks/gpu.py [part ...] [--minutes 8]

Parts, in their order: build, device (tests on the GPU), sanitizer, measure, suite (the other
tests). Any of them can be asked for alone. What was done for the sources as they are is not done
again, and what ran out of time goes on, so that a call with a time limit can be repeated. Each call
writes benchmarks/results/<gpu>-<date>.csv, as far as was measured, and a page beside it.

Uses the Python that runs it, with the packages it has, and no network. Exit code 0 when nothing
failed, 1 when something did, 2 when there is no GPU, 4 when something is unfinished.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from _gpu_parts import FAILED, NOT_HERE, PASSED, UNFINISHED, Done, Note, Notes, digest_of, run
from _gpu_suite import (
    Modules,
    asks_for_a_gpu,
    files_of_tests,
    is_installed,
    pytest_command,
    run_files,
)
from _gpu_table import page, read_rows

__all__ = ["LEAST", "MOST", "allowance", "main", "sanitizer_outcome"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SOURCES = ("csrc", "kernels", "nondet_probe", "tests", "benchmarks")

# Seconds: what a part may take at most, and what is kept for it while earlier ones run.
MOST = {"build": 240.0, "device": 120.0, "sanitizer": 50.0, "measure": 110.0, "suite": 240.0}
LEAST = {"build": 0.0, "device": 60.0, "sanitizer": 15.0, "measure": 70.0, "suite": 30.0}
PARTS = tuple(MOST)


def allowance(part: str, parts: list[str], left: float) -> float:
    """Seconds for a part, of those that are left for it and what comes after it."""
    later = parts[parts.index(part) + 1 :]
    return max(0.0, min(MOST[part], left - sum(LEAST[one] for one in later)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=8.0)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if not given.minutes > 0:
        parser.error(f"--minutes {given.minutes}: more than 0")
    ends = time.monotonic() + 60 * given.minutes
    gpu = gpu_name()
    if gpu is None:
        print("make gpu: torch sees no CUDA device; nothing was run", file=sys.stderr)
        return 2
    folder = ROOT / "build" / "gpu" / digest_of(ROOT, SOURCES, ["setup.py", "pyproject.toml"])
    notes = Notes(folder / "notes.json")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    stem = f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{date}"
    rows = RESULTS / f"{stem}.csv"
    print(_missing_packages(), flush=True)
    asked = [part for part in PARTS if not given.parts or part in given.parts]
    for part in asked:
        # A build is looked at each time, which is quick: its notes may have travelled without it.
        if part != "build" and notes.is_done(part):
            print(f"{part}: done before", flush=True)
            continue
        seconds = allowance(part, asked, ends - time.monotonic())
        print(f"{part}: at most {seconds:.0f} s", flush=True)
        start = time.monotonic()
        before = notes.parts.get(part, Note(UNFINISHED))
        note = _PARTS[part](seconds, folder, rows, before)
        note.seconds = before.seconds + time.monotonic() - start
        # The page is for other machines, too.
        note.said = [line.replace(f"{ROOT}{os.sep}", "") for line in note.said]
        notes.keep(part, note)
        print(f"{part}: {note.outcome} after {note.seconds:.0f} s", flush=True)
        print("".join(f"  {line}\n" for line in note.said), end="", flush=True)
        if part == "build" and note.outcome != PASSED:
            break  # the others would look at something else
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{stem}.md"
    target.write_text(page(gpu, date, read_rows(rows), notes.parts), "utf-8")
    print(f"written: {target.relative_to(ROOT)}")
    return exit_code([notes.parts[part].outcome for part in asked if part in notes.parts])


def exit_code(outcomes: list[str]) -> int:
    if FAILED in outcomes:
        return 1
    return 4 if UNFINISHED in outcomes else 0


def gpu_name() -> str | None:
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or None


def _missing_packages() -> str:
    """What of the packages that tests and measurements use is not there."""
    wanted = (ROOT / "requirements-dev.txt").read_text("utf-8")
    names = re.findall(r"^([\w-]+)==", wanted, re.MULTILINE)
    imported = {"scikit-learn": "sklearn"}
    lacking = [
        name for name in names if not is_installed(imported.get(name, name).replace("-", "_"))
    ]
    if not lacking:
        return "packages: all of requirements-dev.txt are here"
    return f"packages not here: {', '.join(lacking)}; what needs them is left out"


# ---- parts: (seconds, folder for logs, file for rows, the note so far) -> the note


def _build(seconds: float, folder: Path, rows: Path, before: Note) -> Note:
    command = [sys.executable, "-m", "pip", "install", "--verbose", "--disable-pip-version-check"]
    command += ["--no-build-isolation", "--no-deps", "--no-index", "-e", "."]
    done = run(command, seconds, ROOT, {"NONDET_PROBE_CUDA": "1"})
    _log(folder, "build", done)
    said = re.findall(r"nondet_probe\._C: .*", done.output)
    if done.code is None:
        return Note(UNFINISHED, said=[*said, "objects that are compiled are kept"])
    if done.code:
        return Note(FAILED, said=[*said, *done.last(15)])
    code = "from nondet_probe.bits import device; print(device.why_not() or '')"
    why_not = run([sys.executable, "-c", code], 60, folder).output.strip()
    return Note(FAILED, said=[*said, why_not]) if why_not else Note(PASSED, said=said)


def _device(seconds: float, folder: Path, rows: Path, before: Note) -> Note:
    files = [file for file in files_of_tests(ROOT / "tests") if asks_for_a_gpu(file)]
    return _tests(files, "gpu", 4, seconds, folder / "device", before)


def _suite(seconds: float, folder: Path, rows: Path, before: Note) -> Note:
    start = time.monotonic()
    # Once for all files, which would otherwise do it side by side.
    code = "import sys; sys.path.insert(0, 'tests/cuda'); import emulated; emulated.emulated()"
    done = run([sys.executable, "-c", code], seconds, ROOT)
    if done.code is None:
        return Note(UNFINISHED, said=["no time after the emulated grid"], items=before.items)
    files = files_of_tests(ROOT / "tests")
    workers = max(2, (os.cpu_count() or 2) // 2)
    left = seconds - (time.monotonic() - start)
    return _tests(files, "not gpu", workers, left, folder / "suite", before)


def _tests(
    files: list[Path], marks: str, workers: int, seconds: float, folder: Path, before: Note
) -> Note:
    if not is_installed("pytest"):
        return Note(FAILED, said=["pytest is not here: bring it along, then call this again"])
    roots = [ROOT, ROOT / "tests" / "ops", ROOT / "tests" / "kernels", ROOT / "benchmarks"]
    modules = Modules(roots, is_installed)
    items, left_out, waiting = dict(before.items), [], []
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        lacking = modules.missing(file)
        if lacking:
            left_out.append(f"left out, for want of {', '.join(sorted(lacking))}: {name}")
        elif items.get(name) != PASSED:
            waiting.append(file)
    said: list[str] = []

    def told(file: Path, outcome: str, done: Done) -> None:
        name = file.relative_to(ROOT).as_posix()
        items[name] = outcome
        _log(folder, file.stem, done)
        if outcome == FAILED:
            lines = done.output.splitlines()
            failed = [line for line in lines if line.startswith(("FAILED", "ERROR "))]
            said.extend(failed[:5] or [f"{name}: {' / '.join(done.last(3))}"])

    def command(file: Path) -> list[str]:
        return pytest_command(sys.executable, "-m", marks, str(file))

    run_files(waiting, command, ROOT, seconds, workers, told)
    names = [file.relative_to(ROOT).as_posix() for file in waiting]
    late = [name for name in names if items.get(name, UNFINISHED) == UNFINISHED]
    said.append(f"files of tests that passed: {sum(of == PASSED for of in items.values())}")
    said += left_out
    said += [f"not run in this time: {', '.join(late)}"] if late else []
    outcome = FAILED if FAILED in items.values() else UNFINISHED if late else PASSED
    return Note(outcome, said=said, items=items)


def _sanitizer(seconds: float, folder: Path, rows: Path, before: Note) -> Note:
    found = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if found is None:
        return Note(NOT_HERE, said=["there is no compute-sanitizer"])
    # Each tensor in memory of its own: what lies beside it is then out of bounds.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    tools = {"memcheck": ["3000"], "racecheck": ["600"]}
    note = Note(PASSED)
    ends = time.monotonic() + seconds
    for number, (tool, size) in enumerate(tools.items()):
        options = ["--tool", tool, "--error-exitcode", "99"]
        # Our kernels: torch's are not ours to judge.
        options += ["--kernel-regex", "kns=ndp"] if tool == "racecheck" else []
        command = [found, *options, sys.executable, "benchmarks/gpu_small.py", *size]
        share = (ends - time.monotonic()) / (len(tools) - number)
        done = run(command, share, ROOT, alone)
        _log(folder, tool, done)
        outcome, line = sanitizer_outcome(done)
        note.said.append(f"{tool}: {line}")
        note.items[tool] = outcome
    for outcome in (FAILED, UNFINISHED, NOT_HERE):
        if outcome in note.items.values():
            note.outcome = outcome
            break
    return note


_REFUSALS = ("Device not supported", "not supported on", "insufficient permissions")


def sanitizer_outcome(done: Done) -> tuple[str, str]:
    """What a run of compute-sanitizer came to, and the line that says so."""
    lines = [line.removeprefix("=========").strip() for line in done.output.splitlines()]
    refusal = next((line for line in lines if any(one in line for one in _REFUSALS)), None)
    if refusal is not None:
        return NOT_HERE, f"refused: {refusal}"
    if done.code is None:
        return UNFINISHED, f"not finished in {done.seconds:.0f} s"
    summary = next((line for line in lines if "SUMMARY" in line), "no summary")
    if done.code == 0 and re.search(r"SUMMARY: 0 (errors|hazards)", summary):
        return PASSED, summary
    return FAILED, f"{summary}; exit code {done.code}"


def _measure(seconds: float, folder: Path, rows: Path, before: Note) -> Note:
    RESULTS.mkdir(exist_ok=True)
    command = [sys.executable, "benchmarks/gpu_measure.py", "--rows", str(rows)]
    # It stops by itself between two cases; the rest is for the one that is under way.
    command += ["--done", str(folder / "measured.txt"), "--seconds", f"{0.8 * seconds:.0f}"]
    done = run(command, seconds, ROOT)
    _log(folder, "measure", done)
    if done.code is None or done.code == 4:
        return Note(UNFINISHED, said=done.last(2))
    return Note(PASSED) if done.code == 0 else Note(FAILED, said=done.last(10))


def _log(folder: Path, name: str, done: Done) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.log").write_text(done.output, "utf-8")


_PARTS: dict[str, Callable[[float, Path, Path, Note], Note]] = {
    "build": _build,
    "device": _device,
    "sanitizer": _sanitizer,
    "measure": _measure,
    "suite": _suite,
}

if __name__ == "__main__":
    sys.exit(main())
