"""The `fixed_order` sum (docs/ops.md) in pieces: 64 lanes folded in halves, chunks added in rounds.

Every addition is written out, one after the other: none is left to `tl.sum`, whose tree depends on
how many warps share the work.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import minus_zero

__all__ = ["CHUNK", "LANES", "fold_lanes", "push", "settle"]

LANES = tl.constexpr(64)
CHUNK = tl.constexpr(4096)


@triton.jit
def _halves(x, ROWS: tl.constexpr, HALF: tl.constexpr):
    low, high = tl.split(tl.permute(tl.reshape(x, [ROWS, 2, HALF]), [0, 2, 1]))
    return low + high


@triton.jit
def fold_lanes(lanes, ROWS: tl.constexpr):
    """[ROWS, 64] to [ROWS]: lane j takes lane j + 32, then j + 16, ... j + 1."""
    x = _halves(lanes, ROWS, 32)
    x = _halves(x, ROWS, 16)
    x = _halves(x, ROWS, 8)
    x = _halves(x, ROWS, 4)
    x = _halves(x, ROWS, 2)
    x = _halves(x, ROWS, 1)
    return tl.reshape(x, [ROWS])


@triton.jit
def _slot(slots, LEVEL: tl.constexpr, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    """Column LEVEL: everything else is -0.0, which changes no sum whatever its order."""
    here = (tl.arange(0, LEVELS) == LEVEL)[None, :]
    rest = minus_zero([ROWS, LEVELS], slots.dtype == tl.float64)
    return tl.sum(tl.where(here, slots, rest), axis=1)


@triton.jit
def push(slots, x, chunk, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    """Take the sum x [ROWS] of chunk number `chunk`: a binary counter of sums of 2^level chunks.

    slots: [ROWS, LEVELS], as `minus_zero` makes it before the first one. LEVELS: a power of two,
    at least the bits of the number of chunks.
    """
    level = tl.arange(0, LEVELS)[None, :]
    for i in tl.static_range(LEVELS):
        low = (1 << i) - 1
        carried = (chunk & low) == low
        full = ((chunk >> i) & 1) == 1
        slots = tl.where((level == i) & carried & (not full), x[:, None], slots)
        x = tl.where(carried & full, _slot(slots, i, ROWS, LEVELS) + x, x)
    return slots


@triton.jit
def settle(slots, chunks, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    """The sum [ROWS] of all chunks, `chunks` of them."""
    total = minus_zero([ROWS], slots.dtype == tl.float64)
    for i in tl.static_range(LEVELS):
        full = ((chunks >> i) & 1) == 1
        total = tl.where(full, _slot(slots, i, ROWS, LEVELS) + total, total)
    return total
