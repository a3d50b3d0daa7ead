"""The state of training, leaf by leaf, and the first place where two copies of it differ.

The state is: parameters, buffers (persistent or not), the optimizer's settings and state, and the
gradients that are still there, since the next step may add to them. What a workload keeps elsewhere
(a scheduler outside the optimizer, a moving average in a closure) is not seen here; it shows as
soon as it moves one of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from nondet_probe.bits import bit_equal
from nondet_probe.errors import UsageError
from nondet_probe.workload import Workload

__all__ = ["KINDS", "Part", "first_difference", "leaves", "parts", "same"]

KINDS = ("parameter", "buffer", "optimizer", "gradient")
"""Of the parts of the state, in their order."""

Leaf = tuple[str, Any]


class Part(NamedTuple):
    """A leaf of the state: its kind (of KINDS), its name within that, the tensor or plain value."""

    kind: str
    name: str
    value: Any

    @property
    def told(self) -> str:
        """The name by which messages and records call it: of a parameter the name alone."""
        return self.name if self.kind == "parameter" else f"{self.kind} {self.name}"


def parts(workload: Workload) -> Iterator[Part]:
    """The whole state, parameters first, in a fixed order of kinds."""
    names: dict[int, str] = {}
    for name, parameter in workload.model.named_parameters():
        names[id(parameter)] = name
        yield Part("parameter", name, parameter)
    for name, buffer in workload.model.named_buffers():
        yield Part("buffer", name, buffer)
    if workload.optimizer is not None:
        for name, value in _remembered(workload.optimizer, names):
            yield Part("optimizer", name, value)
    for name, parameter in workload.model.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.layout is torch.sparse_coo:
            gradient = gradient.coalesce()
            yield Part("gradient", f"{name} indices", gradient.indices())
            gradient = gradient.values()
        yield Part("gradient", name, gradient)


def leaves(workload: Workload) -> Iterator[Leaf]:
    """(name, tensor or plain value) of the whole state, in the order of `parts`."""
    for part in parts(workload):
        yield part.told, part.value


def _remembered(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Iterator[Leaf]:
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                yield from _inside(f"group {number} {key}", value)
        for place, parameter in enumerate(group["params"]):
            owner = names.get(id(parameter), f"parameter {place} of group {number}")
            # .get, since looking up would add an entry to the optimizer's defaultdict.
            state = optimizer.state.get(parameter, {})
            for key, value in state.items():
                yield from _inside(f"{key} of {owner}", value)


def _inside(name: str, value: Any) -> Iterator[Leaf]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _inside(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _inside(f"{name}[{place}]", item)
    else:
        yield name, value


def first_difference(one: Workload, other: Workload) -> str | None:
    """Name of the first leaf whose bits differ; None when the two states are the same.

    A leaf that only one of them has counts as a difference. Raises UsageError naming a tensor whose
    bits cannot be read.
    """
    mine, theirs = dict(leaves(one)), dict(leaves(other))
    for name, value in mine.items():
        if name not in theirs or not same(name, value, theirs[name]):
            return name
    return next((name for name in theirs if name not in mine), None)


def same(name: str, a: Any, b: Any) -> bool:
    """Whether two leaves have the same bits. Raises UsageError as `first_difference` does."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        try:
            return bit_equal(a, b)
        except TypeError as error:
            raise UsageError(f"{name} cannot be compared bit by bit: {error}") from error
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or a.hex() == b.hex()
    if isinstance(a, int | str | complex | None):
        return bool(a == b)
    # Any other object (a function, a handle) is not training state that can be compared.
    return True
