"""Matrix products with K cut by its length alone: docs/ops/matmul.md has the formats.

float64 and float32 are chains of fused multiply-adds, one k after the other: the format of the
CPU. bfloat16 and float16 go to the tensor cores, in an order that is the hardware's within a block
of k. The variants differ in one place: what is done with the sum of a slice of K.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import INTERPRETED, minus_zero, narrow, read, widen

__all__ = ["dot", "product_tiles"]


@triton.jit
def dot(a, b, total):
    """total + a @ b in float32, for blocks of float32, bfloat16 or float16."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        # The interpreter keeps bfloat16 as integers and would multiply those.
        a, b = widen(a), widen(b)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def product_tiles(
    a,  # pointer to the left factors, shape (batch, M, K), any strides
    b,  # pointer to the right factors, shape (batch, K, N), any strides
    out,  # pointer to the result (batch, M, N); "splitk_ordered": sums (slices, batch, M, N);
    # "splitk_atomic": sums (batch, M, N). Sums are float64 for float64, else float32
    M,
    N,
    K,
    a_batch,
    a_row,
    a_k,
    b_batch,
    b_k,
    b_column,
    span,  # k of a slice, a multiple of BLOCK_K
    VARIANT: tl.constexpr,
    CHAIN: tl.constexpr,  # fused multiply-adds; else the tensor cores
    BLOCK_K: tl.constexpr,  # k that are added up before the sum goes to the total: 256
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STEP: tl.constexpr,  # k at a time on the tensor cores
):
    DOUBLE: tl.constexpr = a.dtype.element_ty == tl.float64
    P: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    across = tl.cdiv(N, BLOCK_N)
    row = (tl.program_id(0) // across).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (tl.program_id(0) % across).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    number, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    in_rows, in_columns = row < M, column < N
    a_at = a + batch * a_batch + row * a_row
    b_at = b + batch * b_batch + column * b_column
    end = min(K, (number + 1) * span)
    total = minus_zero([BLOCK_M, BLOCK_N], DOUBLE)
    for first in range(number * span, end, BLOCK_K):
        last = min(end, first + BLOCK_K)
        if CHAIN:
            chain = minus_zero([BLOCK_M, BLOCK_N], DOUBLE)
            for k in range(first, last):
                left = read(a_at + k * a_k, in_rows)[:, None]
                right = read(b_at + k * b_k, in_columns)[None, :]
                left = tl.broadcast_to(left, [BLOCK_M, BLOCK_N])
                right = tl.broadcast_to(right, [BLOCK_M, BLOCK_N])
                chain = tl.fma(left, right, chain)
        else:
            chain = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
            for start in range(first, last, STEP):
                k = start + tl.arange(0, STEP)
                inside = k < last
                left = tl.load(
                    a_at[:, None] + (k * a_k)[None, :],
                    mask=in_rows[:, None] & inside[None, :],
                    other=0,
                )
                right = tl.load(
                    b_at[None, :] + (k * b_k)[:, None],
                    mask=inside[:, None] & in_columns[None, :],
                    other=0,
                )
                chain = dot(left, right, chain)
        total += chain
    inside = in_rows[:, None] & in_columns[None, :]
    here = (batch * M + row[:, None]) * N + column[None, :]
    if VARIANT == "splitk_atomic":
        tl.atomic_add(out + here, total, mask=inside, sem="relaxed")
    elif VARIANT == "splitk_ordered":
        batches = tl.num_programs(2).to(tl.int64)
        tl.store(out + number * batches * M * N + here, total.to(P), mask=inside)
    else:
        tl.store(out + here, narrow(total, out.dtype.element_ty), mask=inside)
