"""Scaled dot product attention, forward and backward: docs/ops/attention.md.

A program of the backward pass owns keys, and goes through the queries: gradients of keys and values
are its own, that of the queries is shared with the other programs. The variants differ in one
place: how `attention_backward` adds to that shared gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .floats import narrow, widen
from .matmul import dot

__all__ = ["attention_backward", "attention_rows", "gradient_along"]

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(x, row, length, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows [len(row), BLOCK_D] of x (length, D), with zeros beyond."""
    d = tl.arange(0, BLOCK_D)
    inside = (row < length)[:, None] & (d < D)[None, :]
    return tl.load(x + row[:, None] * D + d[None, :], mask=inside, other=0)


@triton.jit
def _seen(row, column, keys, CAUSAL: tl.constexpr):
    """Which keys `column` the queries `row` attend to."""
    seen = (column < keys)[None, :]
    if CAUSAL:
        seen = seen & (column[None, :] <= row[:, None])
    return seen


@triton.jit
def attention_rows(
    query,  # pointer, shape (heads, queries, D); heads: of all batches
    key,  # pointer, shape (heads, keys, D)
    value,  # pointer, shape (heads, keys, D)
    out,  # pointer to the result, shape (heads, queries, D)
    logs,  # pointer to log2 of each row's sum, shape (heads, queries), float32
    queries,
    keys,
    scale,
    CAUSAL: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries of a program
    BLOCK_N: tl.constexpr,  # keys at a time
    BLOCK_D: tl.constexpr,
):
    T: tl.constexpr = query.dtype.element_ty
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    head = tl.program_id(1).to(tl.int64)
    q = _tile(query + head * queries * D, row, queries, D, BLOCK_D)
    most = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    gathered = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    end = keys
    if CAUSAL:
        end = min(keys, (tl.program_id(0) + 1) * BLOCK_M)
    for start in range(0, end, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        k = _tile(key + head * keys * D, column, keys, D, BLOCK_D)
        scores = dot(q, tl.trans(k), tl.zeros([BLOCK_M, BLOCK_N], tl.float32)) * (scale * _LOG2E)
        scores = tl.where(_seen(row, column, keys, CAUSAL), scores, float("-inf"))
        larger = tl.maximum(most, tl.max(scores, axis=1))
        shrink = tl.exp2(most - larger)
        share = tl.exp2(scores - larger[:, None])
        total = total * shrink + tl.sum(share, axis=1)
        v = _tile(value + head * keys * D, column, keys, D, BLOCK_D)
        gathered = dot(narrow(share, T), v, gathered * shrink[:, None])
        most = larger
    d = tl.arange(0, BLOCK_D)
    inside = (row < queries)[:, None] & (d < D)[None, :]
    here = out + head * queries * D + row[:, None] * D + d[None, :]
    tl.store(here, narrow(gathered / total[:, None], T), mask=inside)
    tl.store(logs + head * queries + row, most + tl.log2(total), mask=row < queries)


@triton.jit
def gradient_along(
    gradient,  # pointer to the gradient of the result, shape (rows, D)
    out,  # pointer to the result, shape (rows, D)
    along,  # pointer to the sum of their products, shape (rows,), float32
    rows,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    x = widen(_tile(gradient, row, rows, D, BLOCK_D))
    y = widen(_tile(out, row, rows, D, BLOCK_D))
    tl.store(along + row, tl.sum(x * y, axis=1), mask=row < rows)


@triton.jit
def attention_backward(
    query,  # pointer, shape (heads, queries, D)
    key,  # pointer, shape (heads, keys, D)
    value,  # pointer, shape (heads, keys, D)
    gradient,  # pointer to the gradient of the result, shape (heads, queries, D)
    logs,  # pointer, as attention_rows left it
    along,  # pointer, as gradient_along left it, shape (heads, queries)
    dq,  # pointer to zeros, float32, shape (heads, queries, D); "split_buffers": one such a program
    dk,  # pointer to the gradient of the keys
    dv,  # pointer to the gradient of the values
    turns,  # pointer to zeros, int32, one for BLOCK_M queries of a head; "semaphore_ordered"
    queries,
    keys,
    scale,
    blocks,  # blocks of keys a program: 1, but for "split_buffers"
    VARIANT: tl.constexpr,
    CAUSAL: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries at a time
    BLOCK_N: tl.constexpr,  # keys at a time
    BLOCK_D: tl.constexpr,
):
    T: tl.constexpr = query.dtype.element_ty
    part = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    heads = tl.num_programs(1).to(tl.int64)
    of_queries, of_keys = head * queries * D, head * keys * D
    d = tl.arange(0, BLOCK_D)
    query_blocks, key_blocks = tl.cdiv(queries, BLOCK_M), tl.cdiv(keys, BLOCK_N)
    shared = dq + of_queries
    if VARIANT == "split_buffers":
        shared += part * heads * queries * D
    # The last keys first: under a causal mask they have the fewest queries, and nobody waits.
    for number in range(part * blocks, min(key_blocks, (part + 1) * blocks)):
        block = key_blocks - 1 - number
        column = block * BLOCK_N + tl.arange(0, BLOCK_N)
        k = _tile(key + of_keys, column, keys, D, BLOCK_D)
        v = _tile(value + of_keys, column, keys, D, BLOCK_D)
        for_k = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        for_v = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        first = 0
        if CAUSAL:
            first = (block * BLOCK_N) // BLOCK_M
        for place in range(first, query_blocks):
            row = place * BLOCK_M + tl.arange(0, BLOCK_M)
            in_rows = row < queries
            q = _tile(query + of_queries, row, queries, D, BLOCK_D)
            slope = _tile(gradient + of_queries, row, queries, D, BLOCK_D)
            log = tl.load(logs + head * queries + row, mask=in_rows, other=0)
            mean = tl.load(along + head * queries + row, mask=in_rows, other=0)
            empty = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
            scores = dot(q, tl.trans(k), empty) * (scale * _LOG2E)
            share = tl.exp2(scores - log[:, None])
            seen = _seen(row, column, keys, CAUSAL) & in_rows[:, None]
            share = tl.where(seen, share, 0.0)
            for_v = dot(tl.trans(narrow(share, T)), slope, for_v)
            of_share = dot(slope, tl.trans(v), empty)
            of_scores = narrow(share * (of_share - mean[:, None]), T)
            for_k = dot(tl.trans(of_scores), q, for_k)
            for_q = dot(of_scores, k, tl.zeros([BLOCK_M, BLOCK_D], tl.float32)) * scale
            here = shared + row[:, None] * D + d[None, :]
            inside = in_rows[:, None] & (d < D)[None, :]
            if VARIANT == "atomic":
                tl.atomic_add(here, for_q, mask=inside, sem="relaxed")
            elif VARIANT == "semaphore_ordered":
                last = key_blocks - 1
                if CAUSAL:
                    last = min(last, ((place + 1) * BLOCK_M - 1) // BLOCK_N)
                turn = turns + head * query_blocks + place
                while tl.atomic_add(turn, 0, sem="acquire") != last - block:
                    pass
                tl.store(here, tl.load(here, mask=inside, other=0) + for_q, mask=inside)
                tl.debug_barrier()
                tl.atomic_xchg(turn, last - block + 1, sem="release")
            else:
                tl.store(here, tl.load(here, mask=inside, other=0) + for_q, mask=inside)
                tl.debug_barrier()
        inside = (column < keys)[:, None] & (d < D)[None, :]
        at = of_keys + column[:, None] * D + d[None, :]
        tl.store(dk + at, narrow(for_k * scale, T), mask=inside)
        tl.store(dv + at, narrow(for_v, T), mask=inside)
