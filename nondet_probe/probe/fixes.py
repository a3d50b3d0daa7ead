"""What would make a nondeterministic op deterministic: try it on a recorded call, and time it.

Two kinds: switches of torch, which can be set for whole steps (`under_fix`), and other ops that
compute the same. A fix counts as verified only when every execution under it gave the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.rng import preserved_rng
from nondet_probe.env.switches import deterministic_algorithms, thread_count
from nondet_probe.errors import unknown_name
from nondet_probe.probe.replay import Call, difference
from nondet_probe.records import Fix

__all__ = ["SWITCHES", "fixes_of", "under_fix"]

_EXECUTIONS = 10

SWITCHES = {
    "deterministic mode": "torch.use_deterministic_algorithms(True)",
    "one thread": "torch.set_num_threads(1)",
}
"""Fixes for whole steps: name -> the line that applies it. The first is to be preferred."""


def under_fix(name: str | AbstractContextManager[object]) -> AbstractContextManager[object]:
    """A context under the switch `name` of SWITCHES; "" changes nothing, a context is itself.

    Raises UnknownNameError for any other name.
    """
    if not isinstance(name, str):
        return name
    if name == "":
        return nullcontext()
    if name == "deterministic mode":
        return deterministic_algorithms(True)
    if name == "one thread":
        return thread_count(1)
    raise unknown_name("fix", name, SWITCHES, "A fix by another op cannot be set from outside.")


@dataclass(frozen=True)
class _Replacement:
    """Another op for some calls of an op. how: in the forward pass, and when the call stands in the
    backward pass of the user's line. takes: whether it serves a call with these arguments."""

    name: str
    how: str
    how_backward: str
    takes: Callable[..., bool]
    op: Callable[..., Tensor]


def fixes_of(call: Call, phase: str, executions: int = _EXECUTIONS) -> list[Fix]:
    """Try every known fix on `call`, executing it `executions` times with and without, in turns.

    One that raises is returned with its error. No random stream is moved.
    """
    tried = [_try(call, name, how, executions) for name, how in SWITCHES.items() if _off(name)]
    for other in _REPLACEMENTS.get(call.plan.name, ()):
        if other.takes(*call.args, **call.kwargs):
            how = other.how_backward if phase == "backward" else other.how
            tried.append(_try(call, other.name, how, executions, other.op))
    return tried


def _off(name: str) -> bool:
    if name == "one thread":
        return torch.get_num_threads() > 1
    return not (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )


def _try(
    call: Call, name: str, how: str, executions: int, op: Callable[..., Any] | None = None
) -> Fix:
    switch = name if op is None else ""
    ratios: list[float] = []
    first: Sequence[Any] | None = None
    same = True
    try:
        with preserved_rng():
            # The first execution of either kind pays for what is set up once.
            call.again()
            with under_fix(switch):
                call.timed(op)
            for _ in range(executions):
                _, plain_seconds = call.timed()
                with under_fix(switch):
                    found, seconds = call.timed(op)
                ratios.append(seconds / plain_seconds)
                if first is None:
                    first = found
                same = same and difference(first, found) is None
    except Exception as error:
        lines = str(error).splitlines() or [""]
        told = f"{type(error).__name__}: {lines[0]}".removesuffix(": ")
        return Fix(name, how, verified=False, executions=len(ratios), error=told)
    return Fix(name, how, same, executions, median(ratios), (min(ratios), max(ratios)))


def _one_index(indices: Sequence[Tensor | None]) -> tuple[int, Tensor] | None:
    """(dimension, index) of an advanced indexing by a single tensor of integers, else None."""
    given = [(place, index) for place, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].dtype not in (torch.int32, torch.int64):
        return None
    return given[0]


def _adds_by_one_index(
    target: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> bool:
    return accumulate and _one_index(indices) is not None


def _index_add_(
    target: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = True,
    unsafe: bool = False,
) -> Tensor:
    """`target.index_put_(indices, values, accumulate=True)` for a single index tensor."""
    given = _one_index(indices)
    assert given is not None, "asked before"
    dim, index = given
    before, after = target.shape[:dim], target.shape[dim + 1 :]
    source = values.expand(*before, *index.shape, *after).reshape(*before, -1, *after)
    return target.index_add_(dim, _counted_from_start(index, target.shape[dim]), source)


def _index_add(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _index_add_(target.clone(), *args, **kwargs)


def _counted_from_start(index: Tensor, size: int) -> Tensor:
    """Flat, and without the negative positions that `index_add_` does not take."""
    return torch.where(index < 0, index + size, index).reshape(-1)


def _puts_adding(target: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> bool:
    return accumulate and target.is_contiguous()


def _flat_index_add_(
    target: Tensor, index: Tensor, source: Tensor, accumulate: bool = True
) -> Tensor:
    """`target.put_(index, source, accumulate=True)` for a contiguous target."""
    flat = target.view(-1)
    flat.index_add_(0, _counted_from_start(index, flat.numel()), source.reshape(-1))
    return target


def _flat_index_add(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _flat_index_add_(target.clone(), *args, **kwargs)


_BY_INDEX = (
    "index_add_",
    "x.index_add_(dim, index.reshape(-1), values.flatten(dim, dim + index.dim() - 1))",
    "x.index_select(dim, index.reshape(-1)).unflatten(dim, index.shape)  # in place of x[index]",
    _adds_by_one_index,
)
_BY_FLAT_INDEX = (
    "index_add_",
    "x.view(-1).index_add_(0, index.reshape(-1), source.reshape(-1))",
    "x.reshape(-1).index_select(0, index.reshape(-1)).view_as(index)  # in place of x.take(index)",
    _puts_adding,
)
_REPLACEMENTS: dict[str, tuple[_Replacement, ...]] = {
    "aten.index_put_.default": (_Replacement(*_BY_INDEX, _index_add_),),
    "aten.index_put.default": (_Replacement(*_BY_INDEX, _index_add),),
    "aten._index_put_impl_.default": (_Replacement(*_BY_INDEX, _index_add_),),
    "aten.put_.default": (_Replacement(*_BY_FLAT_INDEX, _flat_index_add_),),
    "aten.put.default": (_Replacement(*_BY_FLAT_INDEX, _flat_index_add),),
}
