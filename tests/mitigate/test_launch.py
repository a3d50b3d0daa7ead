"""`nondet-probe reproducible`: a script runs as it would alone, and its account comes after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.mitigate import launch
from nondet_probe.mitigate.strict import strict_setting

WORK = """
import torch
torch.manual_seed(0)
x = torch.rand(301, 1003) - 0.5
y = torch.nn.functional.silu(x @ x.T).sum()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "train.py"


def launched(
    *arguments: str | Path, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nondet_probe", "reproducible", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        # The package as this test has it, also where it is not installed.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_arguments_place_and_report(script: Path, tmp_path: Path) -> None:
    (script.parent / "beside.py").write_text("WORD = 'found'")
    script.write_text(
        f"import beside, json, sys\n{WORK}\n"
        "print(json.dumps([sys.argv, __name__, __file__, sys.path[0], beside.WORD]))"
    )
    written = tmp_path / "report.json"
    theirs = ["--guarantee", "mine", "-m", "two words", "--", ""]
    done = launched("--report", written, "--watch", "--", script, *theirs)
    assert done.returncode == 0, done.stderr
    # Nothing but the script's own on stdout.
    argv, name, file, first, word = json.loads(done.stdout)
    assert argv == [str(script), *theirs]
    assert (name, file, first, word) == ("__main__", str(script), str(script.parent), "found")
    assert "reproducible, launch_invariant:" in done.stderr
    assert "aten::silu, pieces" in done.stderr
    assert "aten::sum, sum fixed_order" in done.stderr
    told = json.loads(written.read_text())
    assert told["guarantee"] == "launch_invariant"
    assert told["rerouted"]["aten::silu"] == {"pieces": 1}
    assert told["rerouted"]["aten::mm"].keys() <= {"slices", "left to MKL's strict mode"}
    assert told["untouched"]["aten::uniform_"] == 1
    assert told["holds"]


@pytest.mark.parametrize(
    ("leaves", "code"),
    [("sys.exit(3)", 3), ("sys.exit('no such data')", 1), ("os._exit(5)", 5)],
)
def test_the_exit_code_is_the_scripts(script: Path, leaves: str, code: int) -> None:
    script.write_text(f"import os, sys\nprint('here', flush=True)\n{leaves}\n")
    done = launched("--", script)
    assert done.returncode == code, done.stderr
    assert done.stdout == "here\n"
    # What ends the process at once leaves nobody to tell.
    assert ("reproducible, launch_invariant:" in done.stderr) == ("os." not in leaves)
    assert ("no such data" in done.stderr) == ("no such data" in leaves)


def test_an_exception_is_told_with_its_line_and_the_report_is_written(
    script: Path, tmp_path: Path
) -> None:
    script.write_text(WORK + "raise RuntimeError('the loss is NaN')\n")
    written = tmp_path / "report.json"
    done = launched("--guarantee", "order_invariant", "--report", written, "--", script)
    assert done.returncode == 1
    assert f'File "{script}", line {len(WORK.splitlines()) + 1}' in done.stderr
    assert "RuntimeError: the loss is NaN" in done.stderr
    assert "weaker than order_invariant:" in done.stderr
    told = json.loads(written.read_text())
    assert told["rerouted"]["aten::sum"] == {"sum binned": 1}
    assert not told["holds"]


def test_a_module(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text(
        "import sys\nfrom . import word\nprint(sys.argv[1:], __name__, word.WORD)\nsys.exit(4)"
    )
    (package / "word.py").write_text("WORD = 'relative'")
    done = launched("-m", "--", "mine.train", "a", "-b", folder=tmp_path)
    assert done.returncode == 4, done.stderr
    assert done.stdout == "['a', '-b'] __main__ relative\n"


def test_what_cannot_be_run_is_told_in_a_line(script: Path) -> None:
    done = launched("--", script)
    assert done.returncode == 2
    assert "no such script" in done.stderr
    assert "Traceback" not in done.stderr


def test_code_under_compile_is_told(script: Path) -> None:
    script.write_text(
        "import torch\n"
        "double = torch.compile(lambda x: (x * 2).sum(), backend='eager')\n"
        "print(double(torch.ones(3)).item())"
    )
    done = launched("--", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6.0\n"
    assert "note: code under torch.compile" in done.stderr
    assert "nothing ran that is known to break" not in done.stderr


class _Replaced(Exception):  # noqa: N818  it stands for a process that is no more
    """What the process would have become."""


def become(
    monkeypatch: pytest.MonkeyPatch, target: list[str], guarantee: str = "launch_invariant"
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that `relaunch` leaves to."""

    def execve(path: str, command: list[str], environment: dict[str, str]) -> Any:
        raise _Replaced(command, environment)

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(_Replaced) as replaced:
        launch.relaunch(target, guarantee, module=False, watch=True, report=Path("here.json"))
    command, environment = replaced.value.args
    return command, environment


def test_mkl_is_told_before_its_first_product_what_the_user_did_not_say(
    monkeypatch: pytest.MonkeyPatch, script: Path
) -> None:
    script.write_text("")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    command, environment = become(monkeypatch, [str(script), "-x"], "run_to_run")
    assert environment.get("MKL_CBWR") == strict_setting()
    assert command[1:3] == ["-m", "nondet_probe.mitigate.launch"]
    assert json.loads(command[3]) == {
        "guarantee": "run_to_run",
        "module": False,
        "watch": True,
        "report": str(Path("here.json").absolute()),
    }
    assert command[4:] == [str(script), "-x"]
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert become(monkeypatch, [str(script)])[1]["MKL_CBWR"] == "COMPATIBLE"


def test_what_cannot_be_started_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, script: Path
) -> None:
    monkeypatch.setattr(os, "execve", lambda *given: pytest.fail("the process was given up"))
    options: dict[str, Any] = {"module": False, "watch": False, "report": None}
    with pytest.raises(UsageError, match="no such script"):
        launch.relaunch([str(script)], "launch_invariant", **options)
    script.write_text("")
    with pytest.raises(UnknownNameError, match="launch_invariant"):
        launch.relaunch([str(script)], "launch-invariant", **options)
