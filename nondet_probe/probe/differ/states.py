"""Two files of state, leaf by leaf and bit by bit: shares, ulps, the first element that differs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nondet_probe.bits import compare
from nondet_probe.errors import RecordError
from nondet_probe.probe.differ.state_files import Key, open_state, spelled
from nondet_probe.records.state_difference import LeafDifference, LeafKind, StateDifference

__all__ = ["diff_states"]

# Plain values whose equality is that of their content.
_PLAIN = (bool, int, str, bytes, bytearray, type(None), torch.Size, torch.dtype, torch.device)


def diff_states(
    a: Path, b: Path, progress: Callable[[int, int], None] | None = None
) -> StateDifference:
    """Compare two state files; of safetensors one pair of tensors is in memory at a time.

    Keys are matched by their path; the order of keys, strides, devices and requires_grad do not
    count. progress: called with (leaves done, of so many). Raises as `open_state` does, and
    RecordError when neither file holds anything.
    """
    one, other = open_state(a), open_state(b)
    if a.suffix != b.suffix and ".safetensors" in (a.suffix, b.suffix):
        # The notes of a safetensors file have no counterpart in the other format.
        for file in (one, other):
            file.keys = [key for key in file.keys if key[0][0] != "metadata"]
    if not one.keys and not other.keys:
        raise RecordError(f"neither {a} nor {b} holds a tensor or a value: nothing to compare")
    found = StateDifference(str(a), str(b))
    theirs = set(other.keys)
    total = len(one.keys)
    for done, key in enumerate(one.keys):
        if progress is not None:
            progress(done, total)
        # One expression, so that no pair outlives its comparison.
        if key in theirs:
            _add(found, key, _read(one.get, key), _read(other.get, key))
        else:
            value = _described(_read(one.get, key))
            found.differences.append(LeafDifference(spelled(key), "only_a", value, None))
    mine = set(one.keys)
    for key in other.keys:
        if key not in mine:
            value = _described(_read(other.get, key))
            found.differences.append(LeafDifference(spelled(key), "only_b", None, value))
    if progress is not None:
        progress(total, total)
    return found


class _Unread:
    """Stands for a leaf that the file holds in a form torch cannot give."""

    def __init__(self, why: str) -> None:
        self.why = why


def _read(get: Callable[[Key], Any], key: Key) -> Any:
    from safetensors import SafetensorError

    try:
        return get(key)
    except (SafetensorError, RuntimeError, TypeError, AttributeError) as error:
        return _Unread(str(error))


def _add(found: StateDifference, key: Key, a: Any, b: Any) -> None:
    """Compare the leaf `key` of both files and count it."""
    name = spelled(key)
    for value in (a, b):
        if isinstance(value, _Unread):
            found.not_covered[name] = value.why
            return
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        _add_tensors(found, name, a, b)
        return
    same = _same(a, b) if type(a) is type(b) else False
    if same is None:
        found.not_covered[name] = f"a {type(a).__name__} is no tensor and no plain value"
        return
    found.values += 1
    if not same:
        kind: LeafKind = "value" if type(a) is type(b) else "type"
        found.differences.append(LeafDifference(name, kind, _described(a), _described(b)))


def _same(a: Any, b: Any) -> bool | None:
    """Whether two values of one type are the same; None for a type that is no plain value."""
    if isinstance(a, float | complex):
        return _bits(a) == _bits(b)
    if isinstance(a, set | frozenset):
        return {(type(item), item) for item in a} == {(type(item), item) for item in b}
    return bool(a == b) if isinstance(a, _PLAIN) else None


def _add_tensors(found: StateDifference, name: str, a: Tensor, b: Tensor) -> None:
    if a.dtype is not b.dtype or a.shape != b.shape:
        kind: LeafKind = "shape" if a.dtype is b.dtype else "dtype"
        found.tensors += 1
        found.differences.append(LeafDifference(name, kind, _described(a), _described(b)))
        return
    a, b = a.detach(), b.detach()
    try:
        seen = compare(a, b)
    except TypeError as error:
        found.not_covered[name] = str(error)
        return
    found.tensors += 1
    found.elements += seen.elements
    found.different += seen.different
    if seen.first is None:
        return
    place = [int(i) for i in torch.unravel_index(torch.tensor(seen.first), a.shape)]
    found.differences.append(
        LeafDifference(
            name,
            "bits",
            _described(a),
            _described(b),
            elements=seen.elements,
            different=seen.different,
            max_ulp=seen.max_ulp,
            first=place,
            first_a=_element(a[tuple(place)]),
            first_b=_element(b[tuple(place)]),
        )
    )


def _described(value: Any) -> str:
    if isinstance(value, _Unread):
        return "unreadable"
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, float):
        # Two NaNs, or 0.0 and -0.0, are told apart by their bits alone.
        return f"{value!r} (0x{_bits(value).hex()})"
    # The type is said where the value alone does not tell it.
    return repr(value) if isinstance(value, str) else f"{type(value).__name__} {value!r}"


def _element(element: Tensor) -> str:
    """Value and bits of a tensor of one element: "0.1 (0x3dcccccd)"; a complex one has two halves,
    the real one first."""
    element = element.reshape(1).resolve_conj().resolve_neg()
    halves = element.view(torch.uint8).reshape(2 if element.is_complex() else 1, -1).tolist()
    written = " ".join(f"0x{bytes(reversed(half)).hex()}" for half in halves)
    return f"{element.item()!r} ({written})"


def _bits(value: float | complex) -> bytes:
    if isinstance(value, complex):
        return struct.pack(">2d", value.real, value.imag)
    return struct.pack(">d", value)
