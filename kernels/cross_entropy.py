"""cross_entropy with class indices: docs/ops/cross_entropy.md has the format.

Rows first; their losses are added by `parts.chunk_sums`, the one place where variants differ.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import exp_of, is_double, log_of, minus_zero, narrow, over, read, times
from .order import CHUNK, LANES, fold_lanes, push, settle
from .softmax import largest_of

__all__ = ["entropy_backward_rows", "entropy_rows", "finish_loss"]


@triton.jit
def entropy_rows(
    x,  # pointer to elements, shape (rows, columns)
    target,  # pointer to classes, shape (rows,), int64
    weight,  # pointer to the classes' weights, shape (columns,)
    losses,  # pointer to losses, shape (rows,), float64 for float64, else float32
    weights,  # pointer to the weight of each row's target, shape (rows,), the same type
    statistics,  # pointer to the largest elements and the totals, shape (2, rows), the same type
    rows,
    columns,
    ignored,
    KEPT: tl.constexpr,  # 1 - smoothing
    SHARE: tl.constexpr,  # smoothing / columns
    WEIGHT: tl.constexpr,  # whether there is one
    SMOOTH: tl.constexpr,  # whether smoothing is not 0
    ROWS: tl.constexpr,
    LEVELS: tl.constexpr,
):
    DOUBLE: tl.constexpr = is_double(x)
    P: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)[None, :]
    at = row[:, None] * columns + lane
    there = (row < rows)[:, None]
    zero = minus_zero([ROWS, LANES], DOUBLE)
    chunks = tl.cdiv(columns, CHUNK)
    most = largest_of(x, at, there, columns, ROWS, DOUBLE)
    slots = minus_zero([ROWS, LEVELS], DOUBLE)
    for first in range(0, columns, CHUNK):
        lanes = minus_zero([ROWS, LANES], DOUBLE)
        for start in range(first, min(columns, first + CHUNK), LANES):
            inside = there & (start + lane < columns)
            lanes += tl.where(inside, exp_of(read(x + at + start, inside) - most[:, None]), zero)
        slots = push(slots, fold_lanes(lanes, ROWS), first // CHUNK, ROWS, LEVELS)
    total = settle(slots, chunks, ROWS, LEVELS)
    log_total = log_of(total.to(tl.float64))

    wanted = tl.load(target + row, mask=row < rows, other=ignored)
    counted = (row < rows) & (wanted != ignored)
    known = counted & (wanted >= 0) & (wanted < columns)
    here = read(x + row * columns + wanted, known)
    factor = tl.full([ROWS], 1.0, P)
    if WEIGHT:
        factor = read(weight + wanted, known)
    apart = here.to(tl.float64) - most.to(tl.float64)
    found = times(factor.to(tl.float64), log_total - apart)
    if SMOOTH:
        slots = minus_zero([ROWS, LEVELS], DOUBLE)
        level = log_total.to(P)[:, None]
        for first in range(0, columns, CHUNK):
            lanes = minus_zero([ROWS, LANES], DOUBLE)
            for start in range(first, min(columns, first + CHUNK), LANES):
                column = start + lane
                inside = there & (column < columns)
                term = level - (read(x + at + start, inside) - most[:, None])
                if WEIGHT:
                    of_class = read(weight + column, column < columns)
                    term = times(tl.broadcast_to(of_class, [ROWS, LANES]), term)
                lanes += tl.where(inside, term, zero)
            slots = push(slots, fold_lanes(lanes, ROWS), first // CHUNK, ROWS, LEVELS)
        smooth = settle(slots, chunks, ROWS, LEVELS).to(tl.float64)
        found = times(found, tl.full([ROWS], KEPT, tl.float64))
        found = found + times(smooth, tl.full([ROWS], SHARE, tl.float64))
    # A target that is no class costs NaN; it is refused before, unless a graph runs.
    found = tl.where(known, found, float("nan"))
    loss = tl.where(counted, narrow(found.to(P), P), 0.0)
    tl.store(losses + row, loss, mask=row < rows)
    tl.store(weights + row, tl.where(counted, factor, 0.0), mask=row < rows)
    tl.store(statistics + row, tl.where(counted, most, 0.0), mask=row < rows)
    total = tl.where(counted, narrow(total, P), 0.0)
    tl.store(statistics + rows + row, total, mask=row < rows)


@triton.jit
def finish_loss(
    total,  # pointer to the sum of the losses
    weights,  # pointer to what it is divided by, float64
    result,  # pointer to one element of the dtype
    MEAN: tl.constexpr,
):
    here = tl.arange(0, 1)
    x = tl.load(total + here)
    if MEAN:
        x = over(x, tl.load(weights + here).to(x.dtype))
    tl.store(result + here, narrow(x, result.dtype.element_ty))


@triton.jit
def entropy_backward_rows(
    gradient,  # pointer to the gradient of the result: one, or one a row for REDUCTION "none"
    x,  # pointer to elements, shape (rows, columns)
    target,  # pointer to classes, shape (rows,), int64
    weight,  # pointer to the classes' weights, shape (columns,)
    whole,  # pointer to the sum of the classes' weights, float64 for float64, else float32
    statistics,  # pointer to the largest elements and the totals, shape (2, rows)
    weights,  # pointer to what a mean was divided by, float64
    dx,  # pointer to the gradient of x, shape (rows, columns)
    rows,
    columns,
    ignored,
    KEPT: tl.constexpr,
    SHARE: tl.constexpr,
    WEIGHT: tl.constexpr,
    SMOOTH: tl.constexpr,
    REDUCTION: tl.constexpr,  # "none", "mean" or "sum"
    ROWS: tl.constexpr,
):
    DOUBLE: tl.constexpr = is_double(x)
    P: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)[None, :]
    at = row[:, None] * columns + lane
    there = (row < rows)[:, None]
    wanted = tl.load(target + row, mask=row < rows, other=ignored)
    counted = (row < rows) & (wanted != ignored)
    known = counted & (wanted >= 0) & (wanted < columns)
    outer = read(gradient + (row if REDUCTION == "none" else row * 0), row < rows)
    if REDUCTION == "mean":
        outer = (outer.to(tl.float64) / tl.load(weights + row * 0)).to(P)
    hit = tl.full([ROWS], KEPT, tl.float64).to(P)
    if WEIGHT:
        hit = times(hit, read(weight + wanted, known))
    level = hit
    if SMOOTH:
        share = tl.full([ROWS], SHARE, tl.float64)
        all_weights = tl.load(whole + row * 0).to(tl.float64)
        level = hit + times(share, all_weights).to(P)
    most = tl.load(statistics + row, mask=row < rows, other=0)
    scale = over(level, tl.load(statistics + rows + row, mask=row < rows, other=1))
    scale = tl.broadcast_to(scale[:, None], [ROWS, LANES])
    smooth = tl.full([ROWS, LANES], SHARE, tl.float64).to(P)
    for start in range(0, columns, LANES):
        column = start + lane
        inside = there & (column < columns)
        slope = times(exp_of(read(x + at + start, inside) - most[:, None]), scale)
        if SMOOTH:
            if WEIGHT:
                of_class = tl.broadcast_to(read(weight + column, column < columns), [ROWS, LANES])
                slope = slope - times(smooth, of_class)
            else:
                slope = slope - smooth
        slope = tl.where(column == wanted[:, None], slope - hit[:, None], slope) * outer[:, None]
        slope = tl.where(known[:, None], slope, float("nan"))
        slope = tl.where(counted[:, None], slope, 0.0)
        tl.store(dx + at + start, narrow(slope, dx.dtype.element_ty), mask=inside)
