"""Arguments and results of calls, tensors of the state: everything into the words of its digest."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe.bits import device, via_c, via_cuda
from nondet_probe.bits.digest import digest
from nondet_probe.env.torch_private import hidden_from_modes
from nondet_probe.probe.operands import unreadable
from nondet_probe.probe.recorder.pending import OnDevice, Pending, combined, combined_bytes
from nondet_probe.records.trace import Words

__all__ = ["Digester"]

_TWO = struct.Struct("<2q")
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_NOTHING = combined(())


class Digester:
    """missed: called with the reason for what cannot be digested."""

    def __init__(self, missed: Callable[[str], None]) -> None:
        self._missed = missed

    def words(self, given: Any, what: str = "") -> Words | Pending | None:
        """One digest of all that `given` holds, nested tuples, lists and dicts.

        A tensor alone has its own digest; several, or what stands beside other values, as
        `combined`. None where a tensor among them cannot be read; objects of other kinds do not
        count. Both are missed, under "`what`: ..." where that is given.
        """
        found = via_c.operand_digests(given)
        if found is None:
            with hidden_from_modes():
                return self._slowly(given, what)
        digests, text, unknown = found
        if unknown is not None:
            self._not_looked_into(unknown, what)
        if len(digests) == 16 and not text:
            return _TWO.unpack(digests)
        return combined_bytes(digests, text)

    def text(self, given: Any) -> Words:
        """The digest of all in `given` that is no tensor."""
        found = via_c.operand_digests(given, tensors=False)
        return combined((), found[1]) if found is not None and found[1] else _NOTHING

    def each(self, tensors: list[Tensor], what: str = "") -> list[Words | Pending | None]:
        """The digest of every one."""
        found = via_c.operand_digests(tensors)
        if found is not None:
            return list(_TWO.iter_unpack(found[0]))
        there: dict[torch.device, list[int]] = {}
        words: list[Words | Pending | None] = [None] * len(tensors)
        for place, tensor in enumerate(tensors):
            if self._is_on_device(tensor):
                there.setdefault(tensor.device, []).append(place)
            else:
                words[place] = self.words(tensor, what)
        for places in there.values():
            with hidden_from_modes():
                rows = via_cuda.digests([tensors[place] for place in places])
            for row, place in enumerate(places):
                words[place] = Pending([OnDevice(rows, row)])
        return words

    @staticmethod
    def joined(parts: Sequence[Words | Pending | None]) -> Words | Pending | None:
        """One digest of several, None where one of them is."""
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        words = [part for part in known if not isinstance(part, Pending)]
        return combined(words) if len(words) == len(known) else Pending(known)

    def _not_looked_into(self, unknown: list[type], what: str) -> None:
        for kind in unknown:
            self._missed(_told(f"objects of type {kind.__qualname__}", what))

    @staticmethod
    def _is_on_device(tensor: Tensor) -> bool:
        return (
            tensor.is_cuda
            and type(tensor) in _PLAIN
            and unreadable(tensor) is None
            and device.why_not() is None
        )

    def _slowly(self, given: Any, what: str) -> Words | Pending | None:
        found = via_c.operand_digests(given, tensors=False)
        assert found is not None, "only tensors cannot be read"
        _, text, unknown = found
        if unknown is not None:
            self._not_looked_into(unknown, what)
        tensors = list(_tensors(given))
        parts: list[Any] = [None] * len(tensors)
        there: dict[torch.device, list[int]] = {}
        for place, tensor in enumerate(tensors):
            if self._is_on_device(tensor):
                there.setdefault(tensor.device, []).append(place)
                continue
            parts[place] = self._one(tensor, what)
            if parts[place] is None:
                return None
        for places in there.values():
            rows = via_cuda.digests([tensors[place] for place in places])
            for row, place in enumerate(places):
                parts[place] = OnDevice(rows, row)
        return Pending(parts, text) if there else combined(parts, text)

    def _one(self, tensor: Tensor, what: str) -> Words | None:
        """By a copy in host memory, where one is needed."""
        if type(tensor) not in _PLAIN:
            reason: str | None = f"tensor subclass {type(tensor).__name__}"
        else:
            reason = unreadable(tensor)
        if reason is None:
            try:
                text = digest(tensor).hex
            except TypeError as error:
                reason = str(error)
            else:
                first, second = struct.unpack(">2q", bytes.fromhex(text))
                return first, second
        self._missed(_told(reason, what))
        return None


def _told(reason: str, what: str) -> str:
    return f"{what}: {reason}" if what else reason


def _tensors(tree: Any) -> Iterator[Tensor]:
    """In the order in which the fast reader meets them."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _tensors(key)
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)
