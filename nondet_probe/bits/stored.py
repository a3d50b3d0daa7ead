"""How the elements of each dtype lie in memory, as far as changing one of them needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["STORED", "Stored"]


@dataclass(frozen=True)
class Stored:
    """width: bits in memory; bits: those that may be flipped, the lowest ones. integers: dtype of
    the same width. last: pattern of the largest number, infinity where the dtype has one, beyond
    which are only NaNs; None for a dtype without an ulp. sign: the sign bit, 0 for none; below: 1
    where it alone is -0.0, 0 where it alone is the only NaN."""

    width: int
    integers: torch.dtype
    last: int | None = None
    sign: int = 0
    below: int = 1
    bits: int = 0

    def is_nan(self, pattern: int) -> bool:
        """Of a floating dtype."""
        assert self.last is not None, "only floats are asked for"
        if self.sign and not self.below and pattern == self.sign:
            return True
        return (pattern & ~self.sign) > self.last

    def place(self, pattern: int) -> int:
        """Where a number stands in the order of all numbers, 0.0 at 0."""
        return self.sign - self.below - pattern if pattern & self.sign else pattern

    def pattern(self, place: int) -> int | None:
        """The number that stands there; None where the order has ended."""
        assert self.last is not None, "only floats are asked for"
        magnitude = place if place >= 0 else -place - self.below
        if magnitude > self.last or (place < 0 and not self.sign):
            return None
        return magnitude if place >= 0 else self.sign + magnitude


def _float(width: int, integers: torch.dtype, last: int, below: int = 1) -> Stored:
    return Stored(width, integers, last, 1 << (width - 1), below, width)


def _integer(width: int, integers: torch.dtype) -> Stored:
    return Stored(width, integers, bits=width)


STORED: dict[torch.dtype, Stored] = {
    torch.float64: _float(64, torch.int64, 0x7FF0_0000_0000_0000),
    torch.float32: _float(32, torch.int32, 0x7F80_0000),
    torch.bfloat16: _float(16, torch.int16, 0x7F80),
    torch.float16: _float(16, torch.int16, 0x7C00),
    torch.float8_e4m3fn: _float(8, torch.int8, 0x7E),
    torch.float8_e5m2: _float(8, torch.int8, 0x7C),
    torch.float8_e4m3fnuz: _float(8, torch.int8, 0x7F, below=0),
    torch.float8_e5m2fnuz: _float(8, torch.int8, 0x7F, below=0),
    # Powers of two: no sign, no zero.
    torch.float8_e8m0fnu: Stored(8, torch.int8, 0xFE, bits=8),
    torch.int64: _integer(64, torch.int64),
    torch.int32: _integer(32, torch.int32),
    torch.int16: _integer(16, torch.int16),
    torch.int8: _integer(8, torch.int8),
    torch.uint64: _integer(64, torch.int64),
    torch.uint32: _integer(32, torch.int32),
    torch.uint16: _integer(16, torch.int16),
    torch.uint8: _integer(8, torch.int8),
    # torch knows no other bytes for a bool than 0 and 1.
    torch.bool: Stored(8, torch.int8, bits=1),
}
"""Every dtype of which an element can be changed."""
