"""The dtypes whose bits this package reads, under the numbers that the digest format gives them.

The numbers are `csrc/dtypes.hpp` and part of `docs/digest.md`: never reused, never changed.
"""

from __future__ import annotations

import torch

__all__ = ["CODES", "FLOATING", "REAL_OF", "dtype_name"]

CODES: dict[torch.dtype, int] = {
    torch.bool: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.uint16: 4,
    torch.int16: 5,
    torch.uint32: 6,
    torch.int32: 7,
    torch.uint64: 8,
    torch.int64: 9,
    torch.float8_e4m3fn: 10,
    torch.float8_e5m2: 11,
    torch.float8_e4m3fnuz: 12,
    torch.float8_e5m2fnuz: 13,
    torch.float8_e8m0fnu: 14,
    torch.float16: 15,
    torch.bfloat16: 16,
    torch.float32: 17,
    torch.float64: 18,
    torch.complex32: 19,
    torch.complex64: 20,
    torch.complex128: 21,
}

REAL_OF: dict[torch.dtype, torch.dtype] = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
"""The dtype of a complex element's two halves."""

FLOATING = frozenset(dtype for dtype, code in CODES.items() if code >= 10)
"""Dtypes that have an ulp: the real floating ones and, by halves, the complex ones."""


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
