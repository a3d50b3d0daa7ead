"""layer_norm and rms_norm over rows, forward and backward: docs/ops/layer_norm.md has the format.

The variants differ in one place: what `norm_parameters` does with the sums of its rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import is_double, minus_zero, narrow, over, read, root, times
from .order import CHUNK, LANES, fold_lanes, push, settle

__all__ = ["norm_backward_rows", "norm_parameters", "norm_rows"]


@triton.jit
def norm_rows(
    x,  # pointer to elements, shape (rows, columns)
    weight,  # pointer to factors, shape (columns,)
    bias,  # pointer to addends, shape (columns,)
    y,  # pointer to the result, shape (rows, columns)
    statistics,  # pointer to means and scales, shape (2, rows), float64 for float64, else float32
    rows,
    columns,
    EPS: tl.constexpr,
    CENTRED: tl.constexpr,  # layer_norm; else rms_norm, which has no mean
    WEIGHT: tl.constexpr,  # whether there is one
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,  # rows a program
    LEVELS: tl.constexpr,  # of order.push, for the chunks of a row
):
    DOUBLE: tl.constexpr = is_double(x)
    P: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)[None, :]
    at = row[:, None] * columns + lane
    there = (row < rows)[:, None]
    zero = minus_zero([ROWS, LANES], DOUBLE)
    n = tl.full([ROWS], columns, P)
    chunks = tl.cdiv(columns, CHUNK)
    mean = tl.full([ROWS], 0.0, P)
    if CENTRED:
        slots = minus_zero([ROWS, LEVELS], DOUBLE)
        for first in range(0, columns, CHUNK):
            lanes = minus_zero([ROWS, LANES], DOUBLE)
            for start in range(first, min(columns, first + CHUNK), LANES):
                inside = there & (start + lane < columns)
                lanes += tl.where(inside, read(x + at + start, inside), zero)
            slots = push(slots, fold_lanes(lanes, ROWS), first // CHUNK, ROWS, LEVELS)
        mean = over(settle(slots, chunks, ROWS, LEVELS), n)
    slots = minus_zero([ROWS, LEVELS], DOUBLE)
    for first in range(0, columns, CHUNK):
        lanes = minus_zero([ROWS, LANES], DOUBLE)
        for start in range(first, min(columns, first + CHUNK), LANES):
            inside = there & (start + lane < columns)
            apart = read(x + at + start, inside)
            if CENTRED:
                apart = apart - mean[:, None]
            lanes += tl.where(inside, times(apart, apart), zero)
        slots = push(slots, fold_lanes(lanes, ROWS), first // CHUNK, ROWS, LEVELS)
    squares = settle(slots, chunks, ROWS, LEVELS)
    scale = over(tl.full([ROWS], 1.0, P), root(over(squares, n) + EPS))
    for start in range(0, columns, LANES):
        column = start + lane
        inside = there & (column < columns)
        result = read(x + at + start, inside)
        if CENTRED:
            result = result - mean[:, None]
        result = times(result, tl.broadcast_to(scale[:, None], [ROWS, LANES]))
        if WEIGHT:
            factor = tl.broadcast_to(read(weight + column, column < columns), [ROWS, LANES])
            result = times(result, factor)
        if BIAS:
            result = result + read(bias + column, column < columns)
        tl.store(y + at + start, narrow(result, y.dtype.element_ty), mask=inside)
    tl.store(statistics + row, narrow(mean, P), mask=row < rows)
    tl.store(statistics + rows + row, narrow(scale, P), mask=row < rows)


@triton.jit
def norm_backward_rows(
    gradient,  # pointer to the gradient of y, shape (rows, columns)
    x,  # pointer to elements, shape (rows, columns)
    weight,  # pointer to factors, shape (columns,)
    statistics,  # pointer to means and scales, shape (2, rows)
    dx,  # pointer to the gradient of x, shape (rows, columns)
    rows,
    columns,
    CENTRED: tl.constexpr,
    WEIGHT: tl.constexpr,
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
    centre = tl.load(statistics + row, mask=row < rows, other=0)[:, None]
    scale = tl.load(statistics + rows + row, mask=row < rows, other=0)[:, None]
    scale = tl.broadcast_to(scale, [ROWS, LANES])
    n = tl.full([ROWS], columns, P)
    chunks = tl.cdiv(columns, CHUNK)
    along_slots = minus_zero([ROWS, LEVELS], DOUBLE)
    level_slots = minus_zero([ROWS, LEVELS], DOUBLE)
    for first in range(0, columns, CHUNK):
        along_lanes = minus_zero([ROWS, LANES], DOUBLE)
        level_lanes = minus_zero([ROWS, LANES], DOUBLE)
        for start in range(first, min(columns, first + CHUNK), LANES):
            column = start + lane
            inside = there & (column < columns)
            normed, scaled = read(x + at + start, inside), read(gradient + at + start, inside)
            if CENTRED:
                normed = normed - centre
            term = times(scaled, times(normed, scale))
            if WEIGHT:
                factor = tl.broadcast_to(read(weight + column, column < columns), [ROWS, LANES])
                term, scaled = times(term, factor), times(scaled, factor)
            along_lanes += tl.where(inside, term, zero)
            if CENTRED:
                level_lanes += tl.where(inside, scaled, zero)
        chunk = first // CHUNK
        along_slots = push(along_slots, fold_lanes(along_lanes, ROWS), chunk, ROWS, LEVELS)
        if CENTRED:
            level_slots = push(level_slots, fold_lanes(level_lanes, ROWS), chunk, ROWS, LEVELS)
    along = over(settle(along_slots, chunks, ROWS, LEVELS), n)[:, None]
    along = tl.broadcast_to(along, [ROWS, LANES])
    level = over(settle(level_slots, chunks, ROWS, LEVELS), n)[:, None]
    for start in range(0, columns, LANES):
        column = start + lane
        inside = there & (column < columns)
        normed, scaled = read(x + at + start, inside), read(gradient + at + start, inside)
        if CENTRED:
            normed = normed - centre
        if WEIGHT:
            factor = tl.broadcast_to(read(weight + column, column < columns), [ROWS, LANES])
            scaled = times(scaled, factor)
        taken = times(times(normed, scale), along)
        if CENTRED:
            taken = taken + level
        result = (scaled - taken) * scale
        tl.store(dx + at + start, narrow(result, dx.dtype.element_ty), mask=inside)


@triton.jit
def norm_parameters(
    gradient,  # pointer to the gradient of y, shape (rows, columns)
    x,  # pointer to elements, shape (rows, columns)
    statistics,  # pointer to means and scales, shape (2, rows)
    gamma,  # pointer to sums for the weight, (chunks, columns); for "atomic" (columns,)
    beta,  # pointer to sums for the bias, the same
    rows,
    columns,
    span,  # rows of a chunk, one program's work
    VARIANT: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    DOUBLE: tl.constexpr = is_double(x)
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    gamma_sum = minus_zero([BLOCK], DOUBLE)
    beta_sum = minus_zero([BLOCK], DOUBLE)
    for row in range(chunk * span, min(rows, (chunk + 1) * span)):
        normed = read(x + row * columns + column, inside)
        slope = read(gradient + row * columns + column, inside)
        if CENTRED:
            normed = normed - tl.load(statistics + row)
        scale = tl.full([BLOCK], tl.load(statistics + rows + row), normed.dtype)
        gamma_sum += times(slope, times(normed, scale))
        if CENTRED:
            beta_sum += slope
    if VARIANT == "atomic":
        tl.atomic_add(gamma + column, gamma_sum, mask=inside, sem="relaxed")
        if CENTRED:
            tl.atomic_add(beta + column, beta_sum, mask=inside, sem="relaxed")
    else:
        tl.store(gamma + chunk * columns + column, gamma_sum, mask=inside)
        if CENTRED:
            tl.store(beta + chunk * columns + column, beta_sum, mask=inside)
