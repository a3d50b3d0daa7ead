"""Single IEEE 754 operations, and exp and log made of them: the same bits as csrc/exp_log.hpp.

Rows are computed in float64 for float64 and in float32 for the others. A product that is added to
something is made by `times`: it is never fused, whatever the compiler was told (Inductor compiles
kernels with its own options).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "INTERPRETED",
    "exp_of",
    "is_double",
    "log_of",
    "minus_zero",
    "narrow",
    "over",
    "read",
    "root",
    "times",
    "widen",
]

# The interpreter has no inline assembly, and fuses nothing.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


def _hex(*digits: str) -> list[tl.constexpr]:
    return [tl.constexpr(float.fromhex(text)) for text in digits]


_LOG2E_32, _HIGH_32, _LOW_32 = _hex("0x1.715476p+0", "0x1.62e4p-1", "0x1.7f7d1cp-20")
_A0, _A1, _A2, _A3, _A4, _A5 = _hex(
    "0x1p-1", "0x1.555556p-3", "0x1.5554eap-5", "0x1.1110ep-7", "0x1.6d4324p-10", "0x1.a124f2p-13"
)
_LOG2E_64, _HIGH_64, _LOW_64 = _hex(
    "0x1.71547652b82fep+0", "0x1.62e42fefa2p-1", "0x1.9ef35793c7673p-41"
)
_B0, _B1, _B2, _B3, _B4, _B5 = _hex(
    "0x1p-1",
    "0x1.5555555555557p-3",
    "0x1.5555555555556p-5",
    "0x1.11111111100dcp-7",
    "0x1.6c16c16c162d4p-10",
    "0x1.a01a01abe7fe1p-13",
)
_B6, _B7, _B8, _B9, _B10 = _hex(
    "0x1.a01a01a6d889cp-16",
    "0x1.71de0231960ebp-19",
    "0x1.27e4db646b17ep-22",
    "0x1.af4de97ca4194p-26",
    "0x1.1f730349868cep-29",
)
_R0, _R1, _R2, _R3, _R4, _R5, _R6 = _hex(
    "0x1.5555555555558p-1",
    "0x1.99999999952d7p-2",
    "0x1.2492492df281ap-2",
    "0x1.c71c62e3f11e6p-3",
    "0x1.7462b51cb66b1p-3",
    "0x1.39fe51a7c18f9p-3",
    "0x1.2b5900de53b32p-3",
)
# Added, these leave a whole number in the low bits of their sum.
_WHOLE_32, _WHOLE_64 = _hex("0x1.8p23", "0x1.8p52")
_SMALLEST_NORMAL, _UP = _hex("0x1p-1022", "0x1p54")


@triton.jit
def times(x, y):
    """x * y, rounded, for blocks or scalars of one float type: float32 or float64."""
    if INTERPRETED:
        return x * y
    elif x.dtype == tl.float64:
        return tl.inline_asm_elementwise(
            "mul.rn.f64 $0, $1, $2;", "=d,d,d", [x, y], dtype=tl.float64, is_pure=True, pack=1
        )
    else:
        return tl.inline_asm_elementwise(
            "mul.rn.f32 $0, $1, $2;", "=f,f,f", [x, y], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def over(x, y):
    """x / y, rounded to nearest."""
    if x.dtype == tl.float64:
        return x / y
    else:
        return tl.div_rn(x, y)


@triton.jit
def root(x):
    """The square root, rounded to nearest."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def minus_zero(SHAPE: tl.constexpr, DOUBLE: tl.constexpr):
    """A block of -0.0, which changes no sum. (A literal -0.0 would become +0.0.)"""
    if DOUBLE:
        return tl.full(SHAPE, -(2**63), tl.int64).to(tl.float64, bitcast=True)
    else:
        return tl.full(SHAPE, -(2**31), tl.int32).to(tl.float32, bitcast=True)


@triton.constexpr_function
def is_double(pointer):
    """Whether what the pointer points to is computed with in float64."""
    return pointer.dtype.element_ty == tl.float64


@triton.jit
def widen(x):
    """Elements, exactly, in the type they are computed in."""
    if x.dtype == tl.bfloat16:
        bits = x.to(tl.uint16, bitcast=True).to(tl.uint32)
        return (bits << 16).to(tl.float32, bitcast=True)
    elif x.dtype == tl.float16:
        return x.to(tl.float32)
    else:
        return x


@triton.jit
def read(pointer, mask):
    """Elements from memory, widened; 0 where the mask is not."""
    return widen(tl.load(pointer, mask=mask, other=0))


@triton.jit
def narrow(x, T: tl.constexpr):
    """x, float64 or float32, rounded to T; NaN becomes the positive quiet NaN without payload."""
    if T == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
        return tl.where(x == x, bits, 0x7FF8000000000000).to(tl.float64, bitcast=True)
    elif T == tl.float32:
        bits = x.to(tl.int32, bitcast=True)
        return tl.where(x == x, bits, 0x7FC00000).to(tl.float32, bitcast=True)
    elif T == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        kept = tl.where(x == x, rounded, 0x7FC0)
        return kept.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        bits = x.to(tl.float16).to(tl.int16, bitcast=True)
        return tl.where(x == x, bits, 0x7E00).to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def _constant(value: tl.constexpr, like):
    return tl.full(like.shape, value, like.dtype)


@triton.jit
def _step(q, r, coefficient: tl.constexpr):
    return times(q, r) + coefficient


@triton.jit
def _exp32(x):
    x = tl.where(x < -104.0, -104.0, x)
    x = tl.where(x > 89.0, 89.0, x)
    shifted = times(x, _constant(_LOG2E_32, x)) + _WHOLE_32
    n = shifted - _WHOLE_32
    r = (x - times(n, _constant(_HIGH_32, x))) - times(n, _constant(_LOW_32, x))
    q = _step(_constant(_A5, x), r, _A4)
    q = _step(q, r, _A3)
    q = _step(q, r, _A2)
    q = _step(q, r, _A1)
    q = _step(q, r, _A0)
    p = (r + times(times(r, r), q)) + 1.0
    # Times 2^n in two halves, neither of which leaves the exponents there are.
    exponent = shifted.to(tl.int32, bitcast=True) - 0x4B400000
    half = ((exponent + 512) >> 1) - 256
    first = ((half + 127) << 23).to(tl.float32, bitcast=True)
    second = ((exponent - half + 127) << 23).to(tl.float32, bitcast=True)
    return times(times(p, first), second)


@triton.jit
def _exp64(x):
    x = tl.where(x < -746.0, -746.0, x)
    x = tl.where(x > 710.0, 710.0, x)
    shifted = times(x, _constant(_LOG2E_64, x)) + _WHOLE_64
    n = shifted - _WHOLE_64
    r = (x - times(n, _constant(_HIGH_64, x))) - times(n, _constant(_LOW_64, x))
    q = _step(_constant(_B10, x), r, _B9)
    q = _step(q, r, _B8)
    q = _step(q, r, _B7)
    q = _step(q, r, _B6)
    q = _step(q, r, _B5)
    q = _step(q, r, _B4)
    q = _step(q, r, _B3)
    q = _step(q, r, _B2)
    q = _step(q, r, _B1)
    q = _step(q, r, _B0)
    p = (r + times(times(r, r), q)) + 1.0
    exponent = shifted.to(tl.int64, bitcast=True) - 0x4338000000000000
    half = ((exponent + 4096) >> 1) - 2048
    first = ((half + 1023) << 52).to(tl.float64, bitcast=True)
    second = ((exponent - half + 1023) << 52).to(tl.float64, bitcast=True)
    return times(times(p, first), second)


@triton.jit
def exp_of(x):
    """exp of a block of float32 or float64. NaN gives a NaN, -inf gives 0, inf gives inf."""
    if x.dtype == tl.float64:
        return _exp64(x)
    else:
        return _exp32(x)


@triton.jit
def log_of(x):
    """log of a block of float64: -inf of 0, a NaN of negative numbers and NaN, inf of inf."""
    small = x < _SMALLEST_NORMAL
    scaled = tl.where(small, times(x, _constant(_UP, x)), x)
    # Counted from sqrt(1/2), so that the exponent field changes there.
    bits = scaled.to(tl.int64, bitcast=True) + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    exponent = (bits >> 52) - 1023 - tl.where(small, 54, 0)
    n = exponent.to(tl.float64)
    f = ((bits & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).to(tl.float64, bitcast=True) - 1.0
    s = f / (f + 2.0)
    z = times(s, s)
    r = _step(_constant(_R6, x), z, _R5)
    r = _step(r, z, _R4)
    r = _step(r, z, _R3)
    r = _step(r, z, _R2)
    r = _step(r, z, _R1)
    r = _step(r, z, _R0)
    half = times(f * 0.5, f)
    low = times(s, half + times(z, r)) + times(n, _constant(_LOW_64, x))
    result = times(n, _constant(_HIGH_64, x)) - ((half - low) - f)
    result = tl.where(x == float("inf"), x, result)
    result = tl.where(x == 0.0, float("-inf"), result)
    return tl.where(x >= 0.0, result, float("nan"))
