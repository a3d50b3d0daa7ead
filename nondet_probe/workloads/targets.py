"""What a user names on the command line, to the function that makes the workload.

Three forms, one door: a built-in name, or one of a built-in family; `package.module:function`;
`path/to/file.py:function`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from nondet_probe.errors import RunFailedError, UsageError, near_matches, unknown_name

if TYPE_CHECKING:  # it imports torch
    from collections.abc import Callable

    from nondet_probe.workload import WorkloadFactory

__all__ = ["BUILTIN", "load_target"]

BUILTIN = {
    "digits-cnn": "nondet_probe.workloads.digits_cnn:digits_cnn",
    "digits-mlp": "nondet_probe.workloads.digits_mlp:digits_mlp",
    "snippets-hashed": "nondet_probe.workloads.snippets_hashed:snippets_hashed",
}
_FAMILIES = {"digits-mlp-": "nondet_probe.workloads.digits_mlp:variant"}
"""How names begin, and the function that makes the workload's of what follows."""
_FORMS = "Or name your own: package.module:function, or path/to/file.py:function."


def load_target(text: str) -> WorkloadFactory:
    """The function that `text` names: a built-in, `package.module:function` or `file.py:function`.

    Members of a family are built in too: `digits-mlp-4-smelu-norm` (`digits_mlp.variant`).

    A module is looked for as `python -m` would, the current directory first; a file finds the
    modules beside it, as under `python file.py`, and is executed once a process, under a private
    module name. Both directories stay on `sys.path`: user code may import later.

    Raises `UsageError` (`UnknownNameError` for a name that does not exist) when `text` leads to no
    function, and `RunFailedError` (step None) when the user's code raises while it is imported.
    """
    for start, makes in _FAMILIES.items():
        if text.startswith(start) and ":" not in text and not _is_path(text):
            member = cast("Callable[[str], WorkloadFactory]", load_target(makes))
            return member(text.removeprefix(start))
    place, colon, name = BUILTIN.get(text, text).rpartition(":")
    if not (place and colon and name):
        raise _incomplete(text.strip(":"))
    module = _from_file(place) if _is_path(place) else _from_name(place)
    if not hasattr(module, name):
        raise unknown_name(f"function in {place}:", name, _functions(module))
    function = getattr(module, name)
    if not callable(function):
        raise UsageError(
            f"{text} is a {type(function).__name__} and cannot be called; a workload is named by a "
            "function that takes a seed and returns nondet_probe.Workload(...)"
        )
    return cast("WorkloadFactory", function)


def _is_path(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def _incomplete(given: str) -> UsageError:
    """The error for a target without a module or without a function."""
    if not _is_path(given) and "." not in given:
        return unknown_name("workload", given, BUILTIN, _FORMS)
    message = f"{given!r} does not say which function makes the workload: write {given}:function"
    try:  # Read, not executed: this is only to help.
        body = ast.parse(Path(given).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return UsageError(message)
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    return UsageError(f"{message}. Functions there: {', '.join(names) or 'none'}.")


def _functions(module: ModuleType) -> list[str]:
    """The public functions that `module` itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _from_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} is neither a module's dotted name nor the path of a .py file")
    _make_importable(os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        # A missing module that `name` does not go through is an import of the user's that failed.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise _import_failed(name, error) from error
        raise _unknown_module(missing) from None


def _unknown_module(name: str) -> UsageError:
    parent = name.rpartition(".")[0]
    folders = getattr(sys.modules[parent], "__path__", []) if parent else [os.getcwd()]
    prefix = f"{parent}." if parent else ""
    found = [prefix + info.name for info in pkgutil.iter_modules(folders)]
    where = "" if parent else f"(In {os.getcwd()}; modules that are installed work as well.)"
    return unknown_name("module", name, found, where)


def _from_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if path.suffix != ".py" or not path.is_file():
        near = near_matches(path.name, [file.name for file in path.parent.glob("*.py")])
        did_you_mean = f"; did you mean {' or '.join(near)}?" if near else "."
        raise UsageError(f"{place} is not a Python file{did_you_mean} Looked for {path}.")
    # Two files of one name are two modules.
    unique = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    name = f"_nondet_probe_target_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{unique}"
    if name in sys.modules:
        return sys.modules[name]
    _make_importable(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # there is a loader for .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look it up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise _import_failed(place, error) from error
        raise
    return module


def _make_importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _import_failed(place: str, error: BaseException) -> RunFailedError:
    """The user's exception in words: what, where in the user's module, and where it came from."""
    message = f"importing {place} raised {type(error).__name__}: {error}"
    # Between this module and the user's lie only frames of importlib.
    ours = {__file__, importlib.__file__}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in ours and not frame.filename.startswith("<frozen importlib")
    ]
    if frames:
        message += f"\n  at {frames[0].filename}:{frames[0].lineno}: {frames[0].line}"
    if frames[1:]:
        message += f"\n  raised at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
    if isinstance(error, SystemExit):
        message += "\n  What only a script does belongs under `if __name__ == '__main__':`."
    if isinstance(error, ImportError) and "relative import" in str(error):
        message += "\n  A file inside a package is named as package.module:function."
    return RunFailedError(message, step=None)
