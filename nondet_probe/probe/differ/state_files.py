"""Files of state, leaf by leaf: safetensors, and what torch.save wrote as far as it is plain data.

Both are opened as untrusted input: nothing in them is ever executed.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import torch

from nondet_probe.errors import RecordError, UsageError

__all__ = ["SUFFIXES", "Key", "StateFile", "open_state", "spelled"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

Key = tuple[tuple[str, Any], ...]
"""Path of a leaf: (what kind of step, which one), so that a dot in a name cannot be mistaken for a
nested one, nor the key 1 for the key "1"."""

# Pages of a mapped file count as memory of this process until it is closed.
_READ_BEFORE_REOPENING = 32 << 20
_DEEPEST = 200
_MOST_LEAVES = 2_000_000


class StateFile:
    """The leaves of one file. `get` reads one leaf when it is asked for,
    a tensor on the CPU or a plain value."""

    def __init__(self, path: Path, keys: list[Key], get: Callable[[Key], Any]) -> None:
        self.path = path
        self.keys = keys
        self.get = get


def open_state(path: Path) -> StateFile:
    """Open a state file by its suffix.

    Raises UsageError for another suffix, RecordError when the file cannot be read as what it is
    called: truncated, foreign, or of objects that only their own code could load.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"{path} is no state file: its name ends in {path.suffix or 'nothing'!r}, known are "
            f"{', '.join(SUFFIXES)}"
        )
    return _safetensors(path) if path.suffix == ".safetensors" else _saved(path)


def spelled(key: Key) -> str:
    """A key as people write it: "optimizer.state.0.exp_avg", "betas[1]"."""
    text = ""
    for kind, name in key:
        if kind == "item":
            text += f"[{name}]"
        elif kind == "empty":
            continue
        else:
            text += f".{name}" if text else str(name)
    return text or "the whole file"


class _Mapped:
    """Tensors of a safetensors file, mapped and let go of in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._open()

    def _open(self) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self.file: Any = safe_open(self._path, framework="pt", device="cpu")
        except SafetensorError as error:
            raise RecordError(
                f"{self._path} is truncated or no safetensors file ({error})"
            ) from error

    def get(self, name: str) -> Any:
        if self._read > _READ_BEFORE_REOPENING:
            self._open()
            self._read = 0
        tensor = self.file.get_tensor(name)
        self._read += tensor.nbytes
        return tensor


def _safetensors(path: Path) -> StateFile:
    mapped = _Mapped(path)
    notes: dict[str, str] = mapped.file.metadata() or {}
    keys: list[Key] = [(("key", name),) for name in sorted(mapped.file.keys())]
    keys += [(("metadata", "__metadata__"), ("key", name)) for name in sorted(notes)]

    def get(key: Key) -> Any:
        name = key[-1][1]
        return notes[name] if key[0][0] == "metadata" else mapped.get(name)

    return StateFile(path, keys, get)


def _saved(path: Path) -> StateFile:
    try:
        # A file of the older format cannot be mapped; its tensors are read at once.
        found = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # whatever a damaged file makes of the reader
        raise RecordError(_why_refused(path, error)) from error
    leaves: dict[Key, Any] = {}
    for key, value in _leaves(found, (), path):
        leaves[key] = value
        if len(leaves) > _MOST_LEAVES:
            raise RecordError(f"{path} holds more than {_MOST_LEAVES} leaves: no state of training")
    return StateFile(path, list(leaves), leaves.__getitem__)


def _why_refused(path: Path, error: Exception) -> str:
    text = str(error)
    if "weights_only" in text or "Weights only" in text:
        wanted = re.search(r"GLOBAL (\S+)", text)
        what = f" ({wanted[1]})" if wanted else ""
        return (
            f"{path} holds more than tensors and plain values{what}, and loading that would run "
            "code from the file, which is never done. Where the program is at hand, save its state "
            f"alone: torch.save(model.state_dict(), {str(path.with_suffix('.state.pt'))!r}), or "
            "with safetensors.torch.save_file, and compare that"
        )
    return f"{path} is truncated or no file of torch.save ({text.splitlines()[0] if text else ''})"


def _leaves(value: Any, key: Key, path: Path) -> Iterator[tuple[Key, Any]]:
    """(key, leaf) of whatever is nested; an empty container is a leaf of its own."""
    if len(key) > _DEEPEST:
        raise RecordError(f"{path} is nested more than {_DEEPEST} deep: no state of training")
    inside: Iterator[tuple[tuple[str, Any], Any]]
    if isinstance(value, Mapping) and value:
        inside = (((_kind_of(name), name), item) for name, item in value.items())
    elif isinstance(value, list | tuple) and not isinstance(value, torch.Size) and value:
        inside = ((("item", place), item) for place, item in enumerate(value))
    elif isinstance(value, Mapping | list | tuple | Set) and not value:
        kinds = {Mapping: "mapping", Set: "set"}
        kind = next((word for of, word in kinds.items() if isinstance(value, of)), "sequence")
        yield (*key, ("empty", "")), f"an empty {kind}"
        return
    else:
        yield key, value
        return
    for step, item in inside:
        yield from _leaves(item, (*key, step), path)


def _kind_of(name: Any) -> str:
    """Keys that are equal in Python and not the same: 1, 1.0 and True."""
    return "key" if isinstance(name, str) else f"key {type(name).__name__}"
