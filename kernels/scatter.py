"""Rows added into the rows of a table: docs/ops/scatter.md has the format of `fixed_point`.

The variants differ in one place: what `scatter_rows` does with an element at its destination.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import narrow, read, times

__all__ = ["finish_fixed", "largest_element", "scatter_rows"]

_NAN, _PLUS, _MINUS, _OTHER = (tl.constexpr(bit) for bit in (1, 2, 4, 8))


@triton.jit
def largest_element(
    x,  # pointer to n elements
    most,  # pointer to the bits of the largest finite magnitude as a float64, int64
    n,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    wide = read(x + place, place < n).to(tl.float64)
    bits = wide.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
    bits = tl.where(bits < 0x7FF0000000000000, bits, 0)
    tl.atomic_max(most, tl.max(bits, axis=0), sem="relaxed")


@triton.jit
def _power(exponent):
    """2^exponent as a float64, for a normal one."""
    return ((exponent + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _shift(most, count_bits):
    """s, so that addends as multiples of 2^-s stay below 2^62 in sum."""
    bits = tl.load(most)
    # Of subnormals the leading bit is the exponent of their bits as a number.
    leading = (bits.to(tl.float64).to(tl.int64, bitcast=True) >> 52) - 1023
    exponent = tl.where(bits >= (1 << 52), (bits >> 52) - 1022, leading + 1 - 1074)
    exponent = tl.where(bits == 0, 0, exponent)
    return tl.minimum(62 - count_bits - exponent, 1074)


@triton.jit
def _fixed(x, shift, BLOCK: tl.constexpr):
    """x in multiples of 2^-shift, to nearest even; 0 for infinities and NaN."""
    half = shift // 2
    scaled = times(x.to(tl.float64), tl.full([BLOCK], _power(half), tl.float64))
    scaled = times(scaled, tl.full([BLOCK], _power(shift - half), tl.float64))
    # Beyond 2^52 every number is whole; up to there, adding 2^52 rounds to a whole number.
    whole = tl.where(scaled < 0.0, -4503599627370496.0, 4503599627370496.0)
    rounded = (scaled + whole) - whole
    size = tl.abs(scaled)
    kept = tl.where(size < 4503599627370496.0, rounded, scaled)
    return tl.where(size < 9223372036854775808.0, kept, 0.0).to(tl.int64)


@triton.jit
def _is_minus_zero(x):
    """x: float64."""
    return x.to(tl.int64, bitcast=True) == -(2**63)


@triton.jit
def scatter_rows(
    index,  # pointer to destinations, shape (n,), int32 or int64
    source,  # pointer to addends, shape (n, columns)
    out,  # pointer to the table, shape (destinations, columns): the dtype, or int64 "fixed_point"
    initial,  # pointer to the initial values of the table
    flags,  # pointer to what was seen beside finite numbers, int32, as the table
    most,  # pointer, as for largest_element
    n,
    columns,
    destinations,
    count_bits,  # the bits of n + 1
    VARIANT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    i = place // columns
    inside = i < n
    d = tl.load(index + i, mask=inside, other=0).to(tl.int64)
    # Indices out of range are refused before, unless a graph runs: nothing is written for them.
    inside = inside & (d >= 0) & (d < destinations)
    cell = d * columns + (place - i * columns)
    if VARIANT == "atomic":
        tl.atomic_add(out + cell, tl.load(source + place, mask=inside, other=0), inside, "relaxed")
    else:
        x = read(source + place, inside).to(tl.float64)
        fixed = _fixed(x, _shift(most, count_bits), BLOCK)
        tl.atomic_add(out + cell, fixed, inside, "relaxed")
        seen = tl.where(x != x, _NAN, 0)
        seen = tl.where(x == float("inf"), _PLUS, seen)
        seen = tl.where(x == float("-inf"), _MINUS, seen)
        from_minus_zero = _is_minus_zero(read(initial + cell, inside).to(tl.float64))
        seen = seen | tl.where(from_minus_zero & (not _is_minus_zero(x)), _OTHER, 0)
        tl.atomic_or(flags + cell, seen, inside & (seen != 0), "relaxed")


@triton.jit
def _toward_odd(bits, inexact, larger):
    """Bits of a float rounded to nearest, as if rounded to odd. larger: the magnitude it is of."""
    even = (bits & 1) == 0
    return tl.where(inexact & even, tl.where(larger, bits + 1, bits - 1), bits)


@triton.jit
def finish_fixed(
    totals,  # pointer to the integer sums of the addends, int64, shape (cells,)
    initial,  # pointer to the initial values
    flags,  # pointer, as for scatter_rows
    most,
    result,  # pointer to the result, of initial's dtype
    cells,
    count_bits,
    BLOCK: tl.constexpr,
):
    T: tl.constexpr = result.dtype.element_ty
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < cells
    first = read(initial + cell, inside).to(tl.float64)
    seen = tl.load(flags + cell, mask=inside, other=0)
    seen = seen | tl.where(first != first, _NAN, 0)
    seen = seen | tl.where(first == float("inf"), _PLUS, 0)
    seen = seen | tl.where(first == float("-inf"), _MINUS, 0)
    shift = _shift(most, count_bits)
    total = tl.load(totals + cell, mask=inside, other=0) + _fixed(first, shift, BLOCK)
    wide = total.to(tl.float64)
    if T != tl.float64:
        rest = total - wide.to(tl.int64)
        bits = wide.to(tl.int64, bitcast=True)
        bits = _toward_odd(bits, rest != 0, (rest > 0) == (total > 0))
        wide = bits.to(tl.float64, bitcast=True)
    half = shift // 2
    wide = times(wide, tl.full([BLOCK], _power(-half), tl.float64))
    wide = times(wide, tl.full([BLOCK], _power(half - shift), tl.float64))
    special = (seen & (_NAN | _PLUS | _MINUS)) != 0
    sign = tl.where((seen & _MINUS) != 0, float("-inf"), float("inf"))
    other = tl.where((seen & (_PLUS | _MINUS)) == (_PLUS | _MINUS), float("nan"), sign)
    other = tl.where((seen & _NAN) != 0, float("nan"), other)
    wide = tl.where(special, other, wide)
    keep = _is_minus_zero(first) & (total == 0) & (seen == 0)
    wide = tl.where(keep, first, wide)
    if T == tl.float64:
        rounded = narrow(wide, T)
    elif T == tl.float32:
        rounded = narrow(wide.to(tl.float32), T)
    else:
        near = wide.to(tl.float32)
        back = near.to(tl.float64)
        bits = near.to(tl.int32, bitcast=True)
        finite = tl.abs(wide) < float("inf")
        bits = _toward_odd(bits, finite & (back != wide), tl.abs(wide) > tl.abs(back))
        rounded = narrow(bits.to(tl.float32, bitcast=True), T)
    tl.store(result + cell, rounded, mask=inside)
