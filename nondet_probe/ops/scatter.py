"""What index_add, scatter_add, index_put and index have in common: their variants, the one call of
the core, and its reference.

All of them come down to rows added into the rows of a table, `out[index[i], :] += source[i, :]`.
The formats and bounds are in docs/ops/scatter.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.ops.checks import check_dtype, readable
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import Guarantee, Variant, register
from nondet_probe.ops.via import via

__all__ = [
    "add_rows",
    "axis",
    "check_index_dtype",
    "check_pair",
    "contiguous_clone",
    "register_variants",
    "rows_ref",
]

_DTYPES = tuple(FORMATS)


def register_variants(op: str) -> None:
    """Register the four variants of the scatter core for one op."""
    for name, guarantee, batch_invariant, error_bound, extra_memory, worst_case, doc in (
        (
            "atomic",
            Guarantee.NONE,
            False,
            "((1 + u)^k - 1) sum|x| over the k addends of a destination, u of the dtype itself",
            "none",
            "from two threads up every call may give other bits; all to one destination is slowest",
            "Threads add into the result by compare-and-swap, in the order in which they arrive.",
        ),
        (
            "ordered",
            Guarantee.LAUNCH_INVARIANT,
            False,
            (
                "((1 + u)^k - 1) sum|x| over the k addends of a destination, u = 2^-53 (float64) "
                "or 2^-24 (others), then one rounding to the dtype"
            ),
            "4 numbers a destination and thread, and for 16-bit floats one more a destination",
            "cancellation: the bound is relative to sum|x|, not to the result",
            "Every destination takes its addends in the order of the index, by fixed chunks.",
        ),
        (
            "fixed_point",
            Guarantee.ORDER_INVARIANT,
            False,
            (
                "k 2^(-s - 1) for the k addends of a destination, s = min(62 - bit_length(n + 1) "
                "- e, 1074) where all |x| < 2^e, then one rounding to the dtype; none at s = 1074"
            ),
            "8 bytes a destination and thread",
            "one large addend anywhere takes the low bits of all others",
            "All addends become 64-bit integers at one scale; these add in any order.",
        ),
        (
            "exact",
            Guarantee.CORRECTLY_ROUNDED,
            True,
            "half an ulp of the result, always",
            "8 or 16 bytes a destination and thread, and 16 an addend that does not fit these",
            (
                "addends of one destination more than 100 binades apart are sorted and added one "
                "by one"
            ),
            "Error-free additions, checked, into pairs of fp64; what does not fit, as fixed point.",
        ),
    ):
        register(
            Variant(
                op=op,
                name=name,
                guarantee=guarantee,
                cross_device=False,
                batch_invariant=batch_invariant,
                error_bound=error_bound,
                extra_memory=extra_memory,
                worst_case=worst_case,
                dtypes=_DTYPES,
                doc=doc,
            )
        )


def check_pair(op: str, variant: str, x: Tensor, source: Tensor, name: str) -> None:
    """TypeError when x is of no dtype that the variant takes, or `source`, called `name`, of
    another one than x."""
    check_dtype(op, variant, x)
    if source.dtype is not x.dtype:
        raise TypeError(
            f"{op} takes {name} of the dtype of input, {dtype_name(x.dtype)}; got "
            f"{dtype_name(source.dtype)}; convert it first"
        )


def check_index_dtype(op: str, index: Tensor, taken: tuple[torch.dtype, ...]) -> None:
    """TypeError when the index is of none of the dtypes taken."""
    if index.dtype not in taken:
        names = " or ".join(dtype_name(dtype) for dtype in taken)
        raise TypeError(f"{op} takes an index of {names}; got {dtype_name(index.dtype)}")


def axis(op: str, dim: int, dims: int) -> int:
    """dim as a number from 0 on. IndexError, as in torch, when there is no such dimension."""
    most = dims or 1
    if not -most <= dim < most:
        raise IndexError(f"{op}: dim must lie in [{-most}, {most - 1}], got {dim}")
    return dim % most


def contiguous_clone(x: Tensor) -> Tensor:
    """A new contiguous tensor with x's elements. TypeError when they do not lie in memory."""
    found = readable(x)
    return found.clone() if found is x else found


def add_rows(
    out: Tensor,
    destinations: int,
    index: Tensor,
    source: Tensor,
    variant: str,
    threads: int | None,
    *,
    wrap: bool = False,
    strict: bool = False,
    grid: tuple[int, int, int] = (0, 1, 1),
) -> Tensor:
    """out[index[i], :] += source[i, :] in place, and out.

    out: contiguous, read as [destinations, columns]; index: n of int32 or int64; source: n times
    columns elements. wrap, strict, grid and errors as in `via_c.scatter_rows`.
    """
    source, index = readable(source), readable(index)
    if index.dtype is not torch.int64:
        index = index.long()
    via(out).scatter_rows(out, destinations, index, source, variant, threads, wrap, strict, grid)
    return out


def rows_ref(out: Tensor, index: Tensor, source: Tensor) -> Tensor:
    """What variant "exact" must make of a table out [destinations, columns], by fractions and
    integers alone. index: [n], in range; source: [n, columns]."""
    rows = []
    for d in range(out.shape[0]):
        addends = torch.cat([out[d : d + 1], source[index == d]])
        rows += [
            tensor_of_bits(round_to_bits(exact_sum(column), out.dtype), out.dtype)
            for column in addends.unbind(1)
        ]
    return torch.stack(rows).reshape(out.shape) if rows else out.clone()
