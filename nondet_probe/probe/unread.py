"""Which operands an op does not read: their content may be memory that nobody wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from nondet_probe.env.torch_private import OpOverload

__all__ = ["read_operands"]

# Write all of `self` without looking at it.
_OVERWRITE = frozenset(
    f"aten::{name}"
    for name in (
        "bernoulli_",
        "cauchy_",
        "copy_",
        "exponential_",
        "fill_",
        "geometric_",
        "log_normal_",
        "normal_",
        "random_",
        "uniform_",
        "zero_",
        "_foreach_copy_",
        "_foreach_zero_",
    )
)
# Take dtype, device and shape of `self`.
_LIKE = frozenset(
    f"aten::{name}"
    for name in (
        "full_like",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones_like",
        "rand_like",
        "randint_like",
        "randn_like",
        "zeros_like",
    )
)
# By the names of arguments: memory that the forward op filled in part only, or where it left the
# state of a generator, if it drew at all. What was made of it is in the other operands.
_SCRATCH = frozenset(
    (
        "log_alpha",
        "philox_offset",
        "philox_seed",
        "reserve",
        "reserveSpace",
        "rng_state",
        "unused",
        "workspace",
    )
)


def read_operands(
    op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """args and kwargs with dtype and shape in the place of each operand that `op` does not read."""
    left = list(args)
    named = dict(kwargs)
    for position, name in _unread(op):
        if position < len(left):
            left[position] = _outside(left[position])
        elif name in named:
            named[name] = _outside(named[name])
    return left, named


@cache
def _unread(op: OpOverload) -> tuple[tuple[int, str], ...]:
    """(position, name) of each operand that it does not read."""
    name = op._schema.name
    if op.namespace != "aten":
        return ()
    whole = name in _OVERWRITE or name in _LIKE
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(op._schema.arguments)
        if (whole and position == 0) or argument.is_out or argument.name in _SCRATCH
    )


def _outside(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, value.shape
    if isinstance(value, list | tuple):
        return [_outside(item) for item in value]
    return value
