"""`make gpu` as a whole, with parts that only say that they ran."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import gpu
import pytest
from _gpu_parts import FAILED, NOT_HERE, PASSED, UNFINISHED, Done, Note
from gpu import LEAST, MOST, PARTS, allowance, main, sanitizer_outcome


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that were run, on a GPU that is not there; all pass."""
    for name in gpu.SOURCES:
        (tmp_path / name).mkdir()
    (tmp_path / "requirements-dev.txt").write_text("pytest==9\nno-such-thing==1\n")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(gpu, "gpu_name", lambda: "NVIDIA H200")
    told: list[str] = []
    for part in PARTS:
        monkeypatch.setitem(gpu._PARTS, part, stub(told, part, PASSED))
    return told


def stub(told: list[str], part: str, outcome: str) -> Callable[[float, Path, Path, Note], Note]:
    def run(seconds: float, folder: Path, rows: Path, before: Note) -> Note:
        assert 0 <= seconds <= MOST[part]
        told.append(part)
        return Note(outcome, said=[f"{part} said this", f"of {gpu.ROOT / 'a.py'}"])

    return run


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    return main()


def written(folder: Path) -> str:
    (file,) = (folder / "benchmarks" / "results").glob("nvidia-h200-*.md")
    return file.read_text("utf-8")


def test_all_parts_in_their_order_and_a_page(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call(monkeypatch) == 0
    assert calls == list(PARTS) == ["build", "device", "sanitizer", "measure", "suite"]
    assert "| suite | passed |" in written(tmp_path)
    assert "- of a.py" in written(tmp_path)
    assert str(tmp_path) not in written(tmp_path)
    assert "packages not here: no-such-thing" in capsys.readouterr().out


def test_what_is_done_is_not_done_again_until_a_source_changes(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu._PARTS, "measure", stub(calls, "measure", UNFINISHED))
    assert call(monkeypatch, "measure", "device") == 4
    assert calls == ["device", "measure"]
    assert call(monkeypatch) == 4
    assert calls[2:] == ["build", "sanitizer", "measure", "suite"]
    (tmp_path / "csrc" / "sum.cu").write_text("new")
    calls.clear()
    assert call(monkeypatch) == 4
    assert calls == list(PARTS)


def test_nothing_is_looked_at_that_was_not_built(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu._PARTS, "build", stub(calls, "build", FAILED))
    assert call(monkeypatch) == 1
    assert calls == ["build"]
    assert "- build said this" in written(tmp_path)


@pytest.mark.parametrize(
    ("outcome", "code"), [(FAILED, 1), (UNFINISHED, 4), (NOT_HERE, 0), (PASSED, 0)]
)
def test_exit_codes(
    outcome: str, code: int, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu._PARTS, "sanitizer", stub(calls, "sanitizer", outcome))
    assert call(monkeypatch) == code
    assert calls == list(PARTS)


def test_without_a_gpu_nothing_is_run(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda: None)
    assert call(monkeypatch) == 2
    assert calls == []


@pytest.mark.parametrize("arguments", [["biuld"], ["--minutes", "0"], ["--minutes", "nan"]])
def test_what_is_not_taken(
    arguments: list[str], calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, *arguments)
    assert calls == []


def test_a_part_leaves_time_for_those_after_it() -> None:
    parts, left = list(PARTS), 480.0
    for part in parts:
        seconds = allowance(part, parts, left)
        assert seconds >= LEAST[part]
        left -= seconds  # the worst: each takes all it may
        assert left >= sum(LEAST[one] for one in parts[parts.index(part) + 1 :])
    assert left >= 0
    assert allowance("measure", ["measure"], 1000) == MOST["measure"]
    assert allowance("build", parts, 100) == 0


@pytest.mark.parametrize(
    ("code", "output", "outcome"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", PASSED),
        (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", PASSED),
        (99, "========= Invalid __global__ write\n========= ERROR SUMMARY: 1 error", FAILED),
        (99, "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)", FAILED),
        (0, "========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", FAILED),
        (1, "ModuleNotFoundError", FAILED),
        (99, "========= Error: Device not supported\n========= ERROR SUMMARY: 1 error", NOT_HERE),
        (None, "========= COMPUTE-SANITIZER", UNFINISHED),
    ],
)
def test_what_a_sanitizer_came_to(code: int | None, output: str, outcome: str) -> None:
    found, said = sanitizer_outcome(Done(code, output, 3.0))
    assert found == outcome
    assert said


def test_without_a_sanitizer_that_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.shutil, "which", lambda *_, **__: None)
    note = gpu._sanitizer(10, tmp_path, tmp_path, Note(UNFINISHED))
    assert (note.outcome, note.said) == (NOT_HERE, ["there is no compute-sanitizer"])


TESTS = {
    "tests/test_good.py": "def test(): pass",
    "tests/test_bad.py": "def test(): assert 0",
    "tests/test_lacking.py": "import no_such_package\ndef test(): pass",
}


def test_files_of_tests_with_what_they_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: on one\n")
    conftest = "def pytest_addoption(parser): parser.addoption('--require-gpu')"
    (tmp_path / "tests" / "conftest.py").write_text(conftest.replace("gpu'", "gpu', nargs='?'"))
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    files = [tmp_path / name for name in TESTS]
    note = gpu._tests(files, "not gpu", 2, 60, tmp_path / "logs", Note(UNFINISHED))
    assert note.outcome == FAILED
    assert note.items == {"tests/test_good.py": PASSED, "tests/test_bad.py": FAILED}
    said = "\n".join(note.said)
    assert "test_bad.py::test" in said
    assert "files of tests that passed: 1" in said
    assert "left out, for want of no_such_package: tests/test_lacking.py" in said
    assert (tmp_path / "logs" / "test_bad.log").exists()

    (tmp_path / "tests" / "test_bad.py").write_text("def test(): pass")
    (tmp_path / "tests" / "test_good.py").write_text("def test(): assert 0, 'not run again'")
    again = gpu._tests(files, "not gpu", 2, 60, tmp_path / "logs", note)
    assert again.outcome == PASSED
    late = gpu._tests(files, "not gpu", 2, 0, tmp_path / "logs", Note(UNFINISHED))
    assert late.outcome == UNFINISHED
    assert "not run in this time: tests/test_good.py, tests/test_bad.py" in late.said
