"""Commands with a time limit, and notes of what they came to."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from _gpu_parts import FAILED, PASSED, UNFINISHED, Note, Notes, digest_of, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_and_what_it_said(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['ASKED']); sys.stderr.write('no\\n'); 1/0"
    done = run(python(code), 60, tmp_path, {"ASKED": "yes"})
    assert done.code == 1
    assert f"{tmp_path} yes\n" in done.output
    assert "no\n" in done.output
    assert done.last(1) == ["ZeroDivisionError: division by zero"]


def test_one_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("import time; time.sleep(3); open('late', 'w')")
    begin = "subprocess.Popen([sys.executable, 'child.py'])"
    code = f"import subprocess, sys, time; print('begun', flush=True); {begin}; time.sleep(60)"
    start = time.monotonic()
    done = run(python(code), 2, tmp_path)
    assert done.code is None
    assert "begun" in done.output
    assert time.monotonic() - start < 30
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_notes_are_kept_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "notes.json"
    notes = Notes(file)
    notes.keep("build", Note(PASSED, 3.0, ["said"]))
    notes.keep("device", Note(UNFINISHED, 1.0, [], {"a": PASSED, "b": FAILED}))
    again = Notes(file)
    assert again.parts == notes.parts
    assert again.is_done("build")
    assert not again.is_done("device")
    assert not again.is_done("suite")


def test_notes_are_of_one_state_of_the_sources(tmp_path: Path) -> None:
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "a.cu").write_text("one")
    (tmp_path / "setup.py").write_text("two")
    (tmp_path / "csrc" / "rows.csv").write_text("1")

    def digest() -> str:
        return digest_of(tmp_path, ["csrc"], ["setup.py"])

    first = digest()
    (tmp_path / "csrc" / "rows.csv").write_text("2")
    assert digest() == first
    (tmp_path / "setup.py").write_text("three")
    second = digest()
    (tmp_path / "csrc" / "a.cu").write_text("four")
    assert len({first, second, digest()}) == 3
