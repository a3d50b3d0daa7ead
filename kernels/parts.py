"""Sums of a vector's chunks, and partial sums added into one: the second half of every variant."""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import is_double, minus_zero, narrow, read
from .order import LANES, fold_lanes, push, settle

__all__ = ["chunk_sums", "fold_parts"]


@triton.jit
def chunk_sums(
    x,  # pointer to n elements
    sums,  # pointer to the chunks' sums, float64 for float64, else float32; for "atomic" to one
    n,
    span,  # elements of a chunk, one program's work
    VARIANT: tl.constexpr,
):
    DOUBLE: tl.constexpr = is_double(x)
    chunk = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)[None, :]
    zero = minus_zero([1, LANES], DOUBLE)
    lanes = minus_zero([1, LANES], DOUBLE)
    end = min(n, (chunk + 1) * span)
    for start in range(chunk * span, end, LANES):
        inside = start + lane < end
        lanes += tl.where(inside, read(x + start + lane, inside), zero)
    total = fold_lanes(lanes, 1)
    here = sums + tl.arange(0, 1)
    if VARIANT == "atomic":
        tl.atomic_add(here, total, sem="relaxed")
    else:
        tl.store(here + chunk, total)


@triton.jit
def fold_parts(
    parts,  # pointer to partial sums, shape (count, columns)
    out,  # pointer to the sums of each group, shape (groups, columns)
    count,
    columns,
    group,  # parts a group; a power of two unless IN_ORDER
    IN_ORDER: tl.constexpr,  # one after the other; else by neighbours, in rounds
    LEVELS: tl.constexpr,  # of order.push, for the parts of a group
    BLOCK: tl.constexpr,
):
    DOUBLE: tl.constexpr = is_double(parts)
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = tl.program_id(1).to(tl.int64)
    inside = column < columns
    first = number * group
    end = min(count, first + group)
    total = minus_zero([BLOCK], DOUBLE)
    slots = minus_zero([BLOCK, LEVELS], DOUBLE)
    for part in range(first, end):
        x = read(parts + part * columns + column, inside)
        if IN_ORDER:
            total += x
        else:
            slots = push(slots, x, part - first, BLOCK, LEVELS)
    if not IN_ORDER:
        total = settle(slots, end - first, BLOCK, LEVELS)
    tl.store(out + number * columns + column, narrow(total, out.dtype.element_ty), mask=inside)
