"""The tensors of a site, by name, and which element of which of them a fault means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nondet_probe.bits.stored import STORED
from nondet_probe.env.generator_words import GENERATORS, generator_words
from nondet_probe.env.torch_private import hidden_from_modes
from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.probe.inject.draw import drawn, paper_stem
from nondet_probe.probe.names import Names, joined
from nondet_probe.probe.recorder.state import parameters_of
from nondet_probe.records.fault import Fault

__all__ = [
    "Candidate",
    "NotThereError",
    "buffers",
    "choose",
    "generators",
    "gradients",
    "inside",
    "matching",
    "of_optimizers",
    "parameters",
]


class NotThereError(UsageError):
    """The tensor has a name and does not exist now; it may later."""


@dataclass(frozen=True)
class Candidate:
    """name: as a trace calls it. others: what else it may be called by. tensor: None where it does
    not exist now, such as the gradient of what was not used. generator: of GENERATORS, whose words
    `tensor` is a copy of."""

    name: str
    others: tuple[str, ...]
    tensor: Tensor | None
    generator: str | None = None


def parameters(
    names: Names, optimizers: Sequence[Optimizer], site: str | None = None
) -> list[Candidate]:
    """Of all known models and optimizers. site: "weight" or "bias" for only those."""
    found: dict[int, Candidate] = {}
    for base, root in names.roots():
        for own, tensor in root.named_parameters():
            inner, full = names.within("", own)[1], names.within(base, own)[1]
            found.setdefault(id(tensor), Candidate(full, (inner,), tensor))
    for number, optimizer in enumerate(optimizers):
        for given, _, name in parameters_of(number, optimizer, names):
            found.setdefault(id(given), Candidate(name, (), given))
    return [one for one in found.values() if site in (None, _site_of(one.name))]


def buffers(names: Names) -> list[Candidate]:
    return [
        Candidate(names.within(base, own)[1], (names.within("", own)[1],), tensor)
        for base, root in names.roots()
        for own, tensor in root.named_buffers()
    ]


def gradients(names: Names, optimizers: Sequence[Optimizer]) -> list[Candidate]:
    """By the names of their parameters."""
    return [
        Candidate(one.name, one.others, one.tensor.grad if one.tensor is not None else None)
        for one in parameters(names, optimizers)
    ]


def of_optimizers(names: Names, optimizers: Sequence[Optimizer]) -> list[Candidate]:
    """The tensors that optimizers keep of each parameter: "fc.weight: exp_avg"."""
    short = {one.name: one.others for one in parameters(names, optimizers)}
    return [
        Candidate(f"{name}: {key}", tuple(f"{one}: {key}" for one in short.get(name, ())), value)
        for number, optimizer in enumerate(optimizers)
        for parameter, _, name in parameters_of(number, optimizer, names)
        # .get, since looking up would add an entry to the optimizer's defaultdict.
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    ]


def generators() -> list[Candidate]:
    """The words of the process's generators."""
    found = []
    for name in GENERATORS:
        try:
            with hidden_from_modes():
                words = torch.from_numpy(generator_words(name))
        except ValueError:
            continue  # then it is none of those known
        found.append(Candidate(name, (), words, name))
    return found


def inside(given: Any, *names: str) -> list[Candidate]:
    """The tensors in nested lists, tuples and dicts. names: of the whole, the first one to be
    shown; a tensor in it is "name: 0" or "name: mask", and `name` alone means all of them."""
    return [
        Candidate(_within(names[0], place), (*names, *(_within(one, place) for one in names)), one)
        for place, one in _tensors(given, "")
    ]


def matching(pattern: str | None, candidates: Iterable[tuple[str, ...]]) -> list[int]:
    """Which of them, each with all its names, a pattern means; a name that is exactly given is not
    read as a pattern."""
    every = list(candidates)
    if pattern is None:
        return list(range(len(every)))
    exact = [place for place, names in enumerate(every) if pattern in names]
    return exact or [
        place
        for place, names in enumerate(every)
        if any(fnmatchcase(name, pattern) for name in names)
    ]


def choose(fault: Fault, candidates: Sequence[Candidate]) -> tuple[Candidate, int, int]:
    """(the tensor, the element's flat index, the direction of a step of one ulp, 0 for a bit).

    Raises UnknownNameError where no tensor has such a name, NotThereError where none of those that
    have it exists now, and UsageError for what cannot be changed so.
    """
    if not candidates:
        raise NotThereError(f"there is no {_SPOKEN.get(fault.site, fault.site)} at that moment")
    found = [candidates[n] for n in matching(fault.name, [(c.name, *c.others) for c in candidates])]
    if not found:
        raise unknown_name(_SPOKEN.get(fault.site, fault.site), str(fault.name), _known(candidates))
    there = [(one, one.tensor) for one in found if one.tensor is not None]
    if not there:
        raise NotThereError(f"{found[0].name} has no {fault.site} at that moment")
    if fault.change == "paper_stem" and fault.name is None:
        there = _stem(there)
    # Not in the order of their registration, which may change with the program.
    there.sort(key=lambda one: one[0].name)
    if fault.seed is None or fault.change == "paper_stem":
        if len(there) > 1:
            raise UsageError(
                f"{len(there)} tensors are called {fault.name or 'anything'!r}, and one is needed: "
                + ", ".join(one.name for one, _ in there[:5])
                + ", ..." * (len(there) > 5)
            )
        candidate, tensor = there[0]
        _check(fault, candidate.name, tensor)
        if fault.index is not None:
            return candidate, fault.index, _DIRECTIONS[fault.change]
        assert fault.seed is not None, "a fault has an index or a seed"
        return candidate, *paper_stem(fault.seed, _elements(candidate.name, tensor))
    for candidate, tensor in there:
        _check(fault, candidate.name, tensor)
    place = drawn(fault.seed, fault.number, sum(tensor.numel() for _, tensor in there))
    for candidate, tensor in there:
        if place < tensor.numel():
            return candidate, place, _DIRECTIONS[fault.change]
        place -= tensor.numel()
    raise AssertionError("the place lies in one of them")


_DIRECTIONS = {"bit": 0, "ulp up": 1, "ulp down": -1}
_SPOKEN = {
    "input": "input of the module",
    "output": "output of the module",
    "optimizer": "state of an optimizer",
    "batch": "tensor in the batch",
    "rng": "random generator",
}


def _site_of(parameter: str) -> str:
    return "bias" if "bias" in parameter.rsplit(".", 1)[-1] else "weight"


def _known(candidates: Sequence[Candidate]) -> list[str]:
    return [one.others[-1] if one.others else one.name for one in candidates]


def _stem(
    there: list[tuple[Candidate, Tensor]],
) -> list[tuple[Candidate, Tensor]]:
    matrices = [one for one in there if one[1].dim() >= 2]
    if not matrices:
        raise UsageError("no weight has two dimensions or more: name the one to be changed")
    return matrices[:1]


def _elements(name: str, tensor: Tensor) -> int:
    if tensor.numel() == 0:
        raise UsageError(f"{name} is empty: there is nothing to draw")
    return tensor.numel()


def _check(fault: Fault, name: str, tensor: Tensor) -> None:
    """UsageError where no element of a chosen tensor can be changed so."""
    kind = STORED.get(tensor.dtype)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if nn.parameter.is_lazy(tensor):
        raise UsageError(f"{name} has no values yet (a lazy module)")
    if kind is None:
        quantized = " is quantized:" if tensor.is_quantized else ""
        raise UsageError(f"{name}{quantized} dtype {dtype} is none of which bits can be changed")
    if fault.change != "bit" and kind.last is None:
        raise UsageError(
            f"{name} has dtype {dtype}, whose elements have no ulp: flip a bit of it, or choose "
            "tensors without it"
        )
    if fault.index is not None and fault.index >= tensor.numel():
        last = f"0 to {tensor.numel() - 1}" if tensor.numel() else "none, it is empty"
        raise UsageError(
            f"index {fault.index} is out of range for {name} of shape {tuple(tensor.shape)}: "
            f"allowed are {last}"
        )
    if fault.bit is not None and fault.bit >= kind.bits:
        raise UsageError(
            f"bit {fault.bit} is out of range for {name}: {dtype} has bits 0 to {kind.bits - 1}"
        )


def _within(name: str, place: str) -> str:
    return f"{name}: {place}" if name and place else name or place


def _tensors(given: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(given, Tensor):
        yield place, given
    elif isinstance(given, Mapping):
        for key, item in given.items():
            yield from _tensors(item, joined(place, str(key)))
    elif isinstance(given, list | tuple):
        for number, item in enumerate(given):
            yield from _tensors(item, joined(place, str(number)))
