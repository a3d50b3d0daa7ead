"""One digest for whatever a loader yields: tensors, arrays, numbers and words at any depth."""

from __future__ import annotations

import array
import struct
from collections.abc import Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from nondet_probe.bits import digest
from nondet_probe.probe.recorder.pending import combined
from nondet_probe.records.trace import Words

__all__ = ["contents", "words_of_bytes", "words_of_text"]

_DEEPEST = 64
# An object may hold its data set, or the program: what has so many others in it is no batch.
_MOST_OBJECTS = 1000


def contents(value: Any) -> tuple[Words, list[str]]:
    """The digest of all that `value` holds, and what in it could not be read (then not in it).

    A tensor alone has its own digest. Lists, tuples, mappings, sets, dataclasses and any object
    with attributes are gone through; numbers count with their bits, -0.0 is not 0.0.
    """
    walk = _Walk()
    walk.enter(value, 0)
    alone = isinstance(value, torch.Tensor) and len(walk.parts) == 1
    return combined(walk.parts, "" if alone else "".join(walk.text)), walk.unread


def words_of_bytes(data: Any) -> Words:
    """The digest of plain bytes, or of any object with a contiguous buffer."""
    return words_of_text(bytes(data).decode("latin-1"))


def words_of_text(text: str) -> Words:
    """The digest of a text."""
    return combined([], text)


class _Walk:
    """parts: digests of tensors in order. text: all else, each item with its kind and length, so
    that no two values read alike. unread: kinds of objects that are opaque."""

    def __init__(self) -> None:
        self.parts: list[Words] = []
        self.text: list[str] = []
        self.unread: list[str] = []
        self._inside: set[int] = set()
        self._objects = 0

    def enter(self, value: Any, depth: int) -> None:
        plain = _plain(value)
        if plain is not None:
            self.text.append(plain)
        elif isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._array(value)
        elif id(value) in self._inside or depth > _DEEPEST:
            # Its outer occurrence says what it holds.
            self.text.append("^;")
        else:
            self._inside.add(id(value))
            self._collection(value, depth + 1)
            self._inside.discard(id(value))

    def _tensor(self, tensor: torch.Tensor) -> None:
        try:
            text = digest(tensor.detach()).hex
        except TypeError as error:
            self._opaque(f"a tensor of {type(tensor).__name__} ({str(error).split(':')[0]})")
            return
        first, second = struct.unpack(">2q", bytes.fromhex(text))
        self.parts.append((first, second))
        self.text.append("t;")

    def _array(self, value: np.ndarray[Any, Any]) -> None:
        self.text.append(f"a{value.dtype.str}{value.shape};")
        self.parts.append(words_of_bytes(value.tobytes()))

    def _collection(self, value: Any, depth: int) -> None:
        name = type(value).__name__
        if isinstance(value, Mapping):
            self.text.append(f"{name}{len(value)}{{")
            for key, item in value.items():
                self.enter(key, depth)
                self.enter(item, depth)
        elif isinstance(value, list | tuple | np.ndarray):
            self.text.append(f"{name}{len(value)}{{")
            for item in value:
                self.enter(item, depth)
        elif isinstance(value, Set) and all(_plain(item) is not None for item in value):
            # Its own order depends on hashes, which are salted.
            self.text.append(f"{name}{len(value)}{{{sorted(str(_plain(item)) for item in value)}")
        elif hasattr(value, "__dict__") and not callable(value) and self._objects < _MOST_OBJECTS:
            self._objects += 1
            self.text.append(f"{name}{{")
            for key, item in vars(value).items():
                self.enter(key, depth)
                self.enter(item, depth)
        else:
            self._opaque(f"a value of type {name}")
        self.text.append("}")

    def _opaque(self, what: str) -> None:
        self.text.append("?;")
        if what not in self.unread:
            self.unread.append(what)


def _plain(value: Any) -> str | None:
    """A number, a word or nothing, spelled so that equal spellings are equal bits; else None."""
    if value is None or isinstance(value, bool | int | torch.dtype | torch.device | torch.Size):
        return f"{value!r};"
    if isinstance(value, float):
        return f"f{struct.pack('<d', value).hex()};"
    if isinstance(value, complex):
        return f"c{struct.pack('<2d', value.real, value.imag).hex()};"
    if isinstance(value, str):
        return f"s{len(value)}:{value};"
    if isinstance(value, bytes | bytearray | memoryview | array.array):
        return f"b{bytes(value).hex()};"
    if isinstance(value, PurePath):
        return f"p{value};"
    if isinstance(value, np.generic):
        return f"n{value.dtype.str}{value.tobytes().hex()};"
    return None
