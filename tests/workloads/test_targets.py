from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nondet_probe.errors import RunFailedError, UnknownNameError, UsageError
from nondet_probe.workloads import BUILTIN, load_target


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]
    sys.path_importer_cache.clear()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


SIMPLE = "def make(seed):\n    return ('made', seed)\n\ndef other(seed):\n    return None\n"


@pytest.mark.parametrize("name", list(BUILTIN))
def test_built_in_names_lead_to_their_function(name: str) -> None:
    function = load_target(name)
    assert f"{function.__module__}:{function.__name__}" == BUILTIN[name]
    assert load_target(BUILTIN[name]) is function


def test_a_module_of_the_current_directory(here: Path) -> None:
    write(here / "training_a.py", SIMPLE)
    assert load_target("training_a:make")(3) == ("made", 3)
    assert sys.path[0] == str(here) == os.getcwd()


def test_a_module_of_a_package_with_relative_imports(here: Path) -> None:
    write(here / "pack" / "__init__.py", "")
    write(here / "pack" / "tools.py", SIMPLE)
    write(here / "pack" / "train.py", "from .tools import make\n")
    assert load_target("pack.train:make")(1) == ("made", 1)


def test_a_file_anywhere_and_the_modules_beside_it(here: Path) -> None:
    write(here / "deep" / "beside.py", SIMPLE)
    write(here / "deep" / "my-train.v2.py", "from beside import make\n")
    assert load_target("deep/my-train.v2.py:make")(2) == ("made", 2)
    assert load_target(f"{here}/deep/my-train.v2.py:make")(2) == ("made", 2)
    # Later imports of the user's code still find their way.
    write(here / "deep" / "late.py", "def make(seed):\n    import beside2\n    return beside2.X\n")
    write(here / "deep" / "beside2.py", "X = 5\n")
    assert load_target("deep/late.py:make")(0) == 5


def test_files_of_one_name_do_not_clash_and_run_once(here: Path) -> None:
    text = "import pathlib\ncount = []\ncount.append(1)\ndef make(seed):\n    return (TAG, count)\n"
    write(here / "a" / "train.py", text + "TAG = 'a'\n")
    write(here / "b" / "train.py", text + "TAG = 'b'\n")
    assert load_target("a/train.py:make")(0) == ("a", [1])
    assert load_target("b/train.py:make")(0) == ("b", [1])
    assert load_target("a/../a/train.py:make")(0) == ("a", [1])


def test_a_file_named_like_a_library_shadows_nothing_of_it(here: Path) -> None:
    write(here / "json.py", SIMPLE)
    import json

    assert load_target("./json.py:make")(1) == ("made", 1)
    assert sys.modules["json"] is json


def test_dataclasses_and_pickle_work_in_a_file(here: Path) -> None:
    write(
        here / "shapes.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: int\n"
        "def make(seed):\n    return Point(seed)\n",
    )
    point = load_target("shapes.py:make")(4)
    assert pickle.loads(pickle.dumps(point)) == point


def test_the_main_part_of_a_script_does_not_run(here: Path) -> None:
    write(here / "script.py", SIMPLE + "if __name__ == '__main__':\n    raise SystemExit(9)\n")
    assert load_target("script.py:make")(0) == ("made", 0)


def test_unknown_built_in_names_the_near_match_and_the_forms() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_target("digit-cnn")
    message = str(caught.value)
    assert "did you mean 'digits-cnn'" in message
    assert "digits-cnn, digits-mlp, snippets-hashed" in message
    assert "package.module:function" in message
    assert "path/to/file.py:function" in message


def test_a_target_without_a_function(here: Path) -> None:
    write(here / "train.py", SIMPLE + "raise RuntimeError('read, never run')\n")
    for text in ("train.py", "train.py:"):
        with pytest.raises(UsageError, match=r"write train.py:function.*: make, other"):
            load_target(text)
    for text in ("pack.train", "absent.py"):
        with pytest.raises(UsageError, match=f"write {text}:function$"):
            load_target(text)
    with pytest.raises(UnknownNameError, match="unknown workload 'make'"):
        load_target(":make")
    with pytest.raises(UnknownNameError, match=r"unknown workload ''\. Known: digits"):
        load_target("")


def test_a_module_that_is_not_there(here: Path) -> None:
    write(here / "training_b.py", SIMPLE)
    with pytest.raises(UnknownNameError, match="did you mean 'training_b'") as caught:
        load_target("trainin_b:make")
    assert str(here) in str(caught.value)
    write(here / "pack2" / "__init__.py", "")
    write(here / "pack2" / "train.py", SIMPLE)
    with pytest.raises(UnknownNameError, match=r"did you mean 'pack2\.train'"):
        load_target("pack2.trian:make")
    with pytest.raises(UnknownNameError, match=r"unknown module 'pack3'"):
        load_target("pack3.train:make")
    with pytest.raises(UnknownNameError, match=r"unknown module 'training_b\.deeper'"):
        load_target("training_b.deeper:make")


@pytest.mark.parametrize("place", [".relative", "a..b", "with space", "train-it"])
def test_what_is_no_module_name(here: Path, place: str) -> None:
    with pytest.raises(UsageError, match="neither a module's dotted name nor the path"):
        load_target(f"{place}:make")


def test_a_file_that_is_not_there(here: Path) -> None:
    write(here / "deep" / "train.py", SIMPLE)
    (here / "folder.py").mkdir()
    with pytest.raises(UsageError, match=r"did you mean train\.py\?") as caught:
        load_target("deep/trian.py:make")
    assert f"Looked for {here}/deep/trian.py" in str(caught.value)
    for place in ("absent/train.py", "folder.py", "deep/train", "deep/"):
        with pytest.raises(UsageError, match=f"{place} is not a Python file"):
            load_target(f"{place}:make")


@pytest.mark.parametrize("place", ["train_c.py", "train_c"])
def test_a_module_without_that_function(here: Path, place: str) -> None:
    write(here / "train_c.py", "from os.path import join\n" + SIMPLE + "def _private(): pass\n")
    with pytest.raises(UnknownNameError) as caught:
        load_target(f"{place}:mak")
    message = str(caught.value)
    assert f"unknown function in {place}: 'mak'; did you mean 'make'?" in message
    assert message.endswith("Known: make, other.")


def test_what_cannot_be_called(here: Path) -> None:
    write(here / "train_d.py", "model = [1]\n")
    with pytest.raises(
        UsageError, match=r"train_d\.py:model is a list and cannot be called; .*seed"
    ):
        load_target("train_d.py:model")


@pytest.mark.parametrize("place", ["bad.py", "bad"])
def test_the_users_exception_is_shown_with_its_line(here: Path, place: str) -> None:
    file = write(here / "bad.py", "import os\n\nvalue = 1 / 0  # the bug\n")
    with pytest.raises(RunFailedError) as caught:
        load_target(f"{place}:make")
    error = caught.value
    assert error.step is None
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert str(error) == (
        f"importing {place} raised ZeroDivisionError: division by zero\n"
        f"  at {file}:3: value = 1 / 0  # the bug"
    )
    # After the mistake is mended the file is read again.
    write(file, SIMPLE + "# mended\n")
    assert load_target(f"{place}:make")(0) == ("made", 0)


def test_an_exception_from_deeper_shows_both_ends(here: Path) -> None:
    write(here / "helper_e.py", "def deep():\n    raise KeyError('x')\n")
    write(here / "bad_e.py", "import helper_e\nhelper_e.deep()\n")
    with pytest.raises(RunFailedError) as caught:
        load_target("bad_e.py:make")
    message = str(caught.value)
    assert f"at {here}/bad_e.py:2: helper_e.deep()" in message
    assert f"raised at {here}/helper_e.py:2: raise KeyError('x')" in message


@pytest.mark.parametrize("place", ["bad_f.py", "bad_f"])
def test_a_missing_library_of_the_users_is_the_users_failure(here: Path, place: str) -> None:
    write(here / "bad_f.py", "import no_such_library_f\n")
    with pytest.raises(RunFailedError, match=r"ModuleNotFoundError.*no_such_library_f") as caught:
        load_target(f"{place}:make")
    assert f"at {here}/bad_f.py:1: import no_such_library_f" in str(caught.value)


def test_a_syntax_error_shows_its_line(here: Path) -> None:
    write(here / "bad_g.py", "x = 1\ndef make(seed:\n    return 1\n")
    with pytest.raises(RunFailedError, match=r"SyntaxError: .*bad_g\.py, line 2"):
        load_target("bad_g.py:make")


def test_a_script_that_leaves_is_told_how_to_stay(here: Path) -> None:
    write(here / "bad_h.py", "import sys\nsys.exit(2)\n")
    with pytest.raises(RunFailedError, match=r"SystemExit: 2(.|\n)*__name__ == '__main__'"):
        load_target("bad_h.py:make")


def test_a_relative_import_in_a_file_is_told_the_other_form(here: Path) -> None:
    write(here / "bad_i.py", "from . import tools\n")
    with pytest.raises(RunFailedError, match=r"is named as package\.module:function"):
        load_target("bad_i.py:make")


def test_an_interrupt_passes(here: Path) -> None:
    write(here / "bad_j.py", "raise KeyboardInterrupt\n")
    known = set(sys.modules)
    with pytest.raises(KeyboardInterrupt):
        load_target("bad_j.py:make")
    assert set(sys.modules) == known


@pytest.mark.parametrize(
    ("code", "torch_is_there"),
    [("", False), ("; targets.load_target('snippets-hashed')", True)],
)
def test_names_are_known_without_torch(code: str, torch_is_there: bool) -> None:
    script = f"import sys; from nondet_probe.workloads import targets{code}"
    script += "; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(torch_is_there)
