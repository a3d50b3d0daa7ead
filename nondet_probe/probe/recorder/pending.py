"""Digests that still lie on a device: noted in order, read once a step."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nondet_probe.records.trace import Words

__all__ = ["OnDevice", "Pending", "combined", "combined_bytes", "settled"]

_TWO = struct.Struct("<2q")


@dataclass(frozen=True, slots=True)
class OnDevice:
    """One digest: row `row` of `words`, int64 [n, 2], which may not have been computed yet."""

    words: Tensor
    row: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A digest of several, of which some lie on a device. text: as for `combined`."""

    parts: Sequence[Words | OnDevice | Pending]
    text: str = ""


def combined(parts: Sequence[Words], text: str = "") -> Words:
    """Of one digest itself; of several, or beside a text, blake2b-128 of them in order (each two
    little-endian 64-bit numbers) and the text in UTF-8."""
    return combined_bytes(b"".join(_TWO.pack(*part) for part in parts), text)


def combined_bytes(digests: bytes, text: str = "") -> Words:
    """The same of digests that are 16 bytes each already."""
    if len(digests) == 16 and not text:
        return _TWO.unpack(digests)
    whole = hashlib.blake2b(digests, digest_size=16)
    if text:
        whole.update(text.encode("utf-8", "surrogatepass"))
    return _TWO.unpack(whole.digest())


def settled(rows: Iterable[tuple[int, int, Any, Any, Any]]) -> Iterator[tuple[Any, ...]]:
    """Rows of (step, site, inputs, outputs, value) with everything read from its device: one wait
    for each device, not for each tensor."""
    waiting = list(rows)
    there: dict[int, Tensor] = {}
    for _, _, inputs, outputs, value in waiting:
        for one in (inputs, outputs):
            if isinstance(one, Pending):
                there.update(_tensors_of(one))
        if isinstance(value, Tensor):
            there[id(value)] = value
    read = _read(there)
    for step, site, inputs, outputs, value in waiting:
        if isinstance(value, Tensor):
            value = read[id(value)]
        yield step, site, _settle(inputs, read), _settle(outputs, read), value


def _tensors_of(pending: Pending) -> Iterator[tuple[int, Tensor]]:
    for part in pending.parts:
        if isinstance(part, OnDevice):
            yield id(part.words), part.words
        elif isinstance(part, Pending):
            yield from _tensors_of(part)


def _settle(one: Words | Pending | None, read: dict[int, Any]) -> Words | None:
    return _settled_words(one, read) if isinstance(one, Pending) else one


def _settled_words(one: Pending, read: dict[int, Any]) -> Words:
    words: list[Words] = []
    for part in one.parts:
        if isinstance(part, OnDevice):
            first, second = read[id(part.words)][part.row]
            words.append((first, second))
        elif isinstance(part, Pending):
            words.append(_settled_words(part, read))
        else:
            words.append(part)
    return combined(words, one.text)


def _read(there: dict[int, Tensor]) -> dict[int, Any]:
    """id -> rows of digests as lists of two, or the number itself of a value."""
    by_kind: dict[tuple[torch.device, bool], list[int]] = {}
    for key, tensor in there.items():
        by_kind.setdefault((tensor.device, tensor.dim() == 2), []).append(key)
    found: dict[int, Any] = {}
    for (_, is_digest), keys in by_kind.items():
        if is_digest:
            lengths = [len(there[key]) for key in keys]
            rows = torch.cat([there[key] for key in keys]).tolist()
            for key, length in zip(keys, lengths, strict=True):
                found[key], rows = rows[:length], rows[length:]
        else:
            values = torch.stack([there[key].detach().double().reshape(()) for key in keys])
            found.update(zip(keys, values.tolist(), strict=True))
    return found
