"""softmax and log_softmax over rows, forward and backward: docs/ops/softmax.md has the format."""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import exp_of, is_double, log_of, minus_zero, narrow, over, read, times
from .order import CHUNK, LANES, fold_lanes, push, settle

__all__ = ["largest_of", "softmax_backward_rows", "softmax_rows"]


@triton.jit
def largest_of(x, at, there, columns, ROWS: tl.constexpr, DOUBLE: tl.constexpr):
    """The largest element of each row [ROWS]; NaNs are passed over, -inf is left of nothing."""
    lane = tl.arange(0, LANES)[None, :]
    most = tl.full([ROWS, LANES], float("-inf"), tl.float64 if DOUBLE else tl.float32)
    for start in range(0, columns, LANES):
        inside = there & (start + lane < columns)
        element = read(x + at + start, inside)
        most = tl.where(inside & (element > most), element, most)
    return tl.max(most, axis=1)


@triton.jit
def softmax_rows(
    x,  # pointer to elements, shape (rows, columns)
    y,  # pointer to the result, of x's dtype and shape
    rows,
    columns,
    LOG: tl.constexpr,  # log_softmax
    ROWS: tl.constexpr,  # rows a program
    LEVELS: tl.constexpr,  # of order.push, for the chunks of a row
):
    DOUBLE: tl.constexpr = is_double(x)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)[None, :]
    at = row[:, None] * columns + lane
    there = (row < rows)[:, None]
    most = largest_of(x, at, there, columns, ROWS, DOUBLE)[:, None]
    zero = minus_zero([ROWS, LANES], DOUBLE)
    slots = minus_zero([ROWS, LEVELS], DOUBLE)
    for first in range(0, columns, CHUNK):
        lanes = minus_zero([ROWS, LANES], DOUBLE)
        for start in range(first, min(columns, first + CHUNK), LANES):
            inside = there & (start + lane < columns)
            lanes += tl.where(inside, exp_of(read(x + at + start, inside) - most), zero)
        slots = push(slots, fold_lanes(lanes, ROWS), first // CHUNK, ROWS, LEVELS)
    total = settle(slots, tl.cdiv(columns, CHUNK), ROWS, LEVELS)
    if LOG:
        total = log_of(total.to(tl.float64)).to(total.dtype)
    total = total[:, None]
    for start in range(0, columns, LANES):
        inside = there & (start + lane < columns)
        apart = read(x + at + start, inside) - most
        result = apart - total if LOG else over(exp_of(apart), total)
        tl.store(y + at + start, narrow(result, y.dtype.element_ty), mask=inside)


@triton.jit
def softmax_backward_rows(
    gradient,  # pointer to the gradient of y, of y's dtype and shape
    y,  # pointer to the result of softmax_rows, shape (rows, columns)
    dx,  # pointer to the gradient of x, of y's dtype and shape
    rows,
    columns,
    LOG: tl.constexpr,
    ROWS: tl.constexpr,
    LEVELS: tl.constexpr,
):
    DOUBLE: tl.constexpr = is_double(y)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)[None, :]
    at = row[:, None] * columns + lane
    there = (row < rows)[:, None]
    zero = minus_zero([ROWS, LANES], DOUBLE)
    slots = minus_zero([ROWS, LEVELS], DOUBLE)
    for first in range(0, columns, CHUNK):
        lanes = minus_zero([ROWS, LANES], DOUBLE)
        for start in range(first, min(columns, first + CHUNK), LANES):
            inside = there & (start + lane < columns)
            term = read(gradient + at + start, inside)
            if not LOG:
                term = times(term, read(y + at + start, inside))
            lanes += tl.where(inside, term, zero)
        slots = push(slots, fold_lanes(lanes, ROWS), first // CHUNK, ROWS, LEVELS)
    total = settle(slots, tl.cdiv(columns, CHUNK), ROWS, LEVELS)[:, None]
    for start in range(0, columns, LANES):
        inside = there & (start + lane < columns)
        slope, result = read(gradient + at + start, inside), read(y + at + start, inside)
        if LOG:
            slope = slope - times(exp_of(result), total)
        else:
            slope = (slope - total) * result
        tl.store(dx + at + start, narrow(slope, dx.dtype.element_ty), mask=inside)
