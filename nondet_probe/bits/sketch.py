"""A count-sketch of many tensors: 4,096 numbers that tell how far two sets of tensors are apart."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nondet_probe.bits import via_c
from nondet_probe.bits.compare import compare
from nondet_probe.bits.dtypes import dtype_name

__all__ = [
    "BUCKETS",
    "SKETCHED",
    "SKETCH_FORMAT",
    "sketch",
    "sketch_distance",
    "sketch_error",
    "sketch_norm",
]

SKETCH_FORMAT = "ndp-sketch-1"
"""Name of the format (docs/sketch.md); another name whenever any value could change."""

BUCKETS = 4096

SKETCHED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Dtypes whose tensors are sketched."""

_VARIANCE = 4
"""The variance of a squared distance is at most this, over BUCKETS, times its square."""


def sketch(tensors: Mapping[str, Tensor], *, threads: int | None = None) -> Tensor:
    """The sketch of all tensors together: float64 [4096], in host memory.

    tensors: by name, of dtypes SKETCHED, of any shapes, strides and devices. The sketch is linear:
    the difference of two is, but for rounding, the sketch of the difference. It depends on names,
    values and the order of elements within a tensor, and on nothing else: not on the order of
    `tensors`, strides, thread count or instruction set. What a tensor is called decides which
    buckets its elements go to, so two models can be compared where names and shapes are the same.
    threads: at most so many; by default torch's own number, and one for small tensors.

    Algorithm: a count-sketch (Charikar, Chen, Farach-Colton, "Finding Frequent Items in Data
    Streams", ICALP 2002) whose hashing takes whole blocks (hashing with signs for inner products:
    Weinberger, Dasgupta, Langford, Smola, Attenberg, "Feature Hashing for Large Scale Multitask
    Learning", ICML 2009). A tensor is cut into blocks of 4,096 elements. A rotation of the block
    says which bucket takes which of its elements; what comes there has a sign from one long table,
    of which each block takes another stretch, times a sign of the block. Rotation, stretch and sign
    are hashed from the tensor's name and the number of the block. Sums are float64, in a fixed
    order.

    Error, over the draw of the hashes and the table, for two sets of tensors that were chosen
    without looking at them: let d be the vector of all differences, D = |d|^2, and S the squared
    distance of the sketches. Then

        E[S] = D,  Var[S] <= 4 D^2 / 4096,  so P(|S - D| > e D) <= 4 / (4096 e^2)

    by Chebyshev's inequality: the distance, the root of S, is within 7.3 % with probability 0.95
    and more (`sketch_error`). Why: elements of one block never share a bucket, so S - D is the sum
    over pairs of different blocks of 2 s s' c, where s, s' are the signs of the two blocks and c is
    the inner product of their differences a and b, rotated and with the signs of the table. s and
    s' are independent, so each term has mean 0 and no two are correlated. Where both blocks have
    the same stretch of the table, once in 4,096 times, c^2 <= |a|^2 |b|^2; where not, the mean of
    c^2 over the table is the sum of the squares of the products that meet, whose mean over
    rotations is |a|^2 |b|^2 / 4096. So E[c^2] <= 2 |a|^2 |b|^2 / 4096, and the sum of 4 E[c^2] over
    all pairs is at most 4 D^2 / 4096. (Differences that are not alike from block to block have half
    of it, as where each element is hashed by itself.) Up to 4,096 elements of one tensor the
    distance is exact, but for rounding.

    Rounding: a bucket sums n/4096 of the n values in float64, each far more exact than float32 is.
    One ulp in one of 10 million float32 weights moves its bucket by that ulp, within 1e-4 of it.
    A change in a float64 tensor that is too small for its bucket's last place can be lost: equal
    sketches do not say that bits are equal. That is what a digest is for.

    A bucket that took a NaN, or infinities of both signs, is NaN.

    Raises TypeError for other dtypes and tensors whose bits cannot be read (`via_c`), ValueError
    for threads < 1.
    """
    given = []
    kept = []
    for name in sorted(tensors, key=_spelled):
        tensor = tensors[name]
        code = via_c.dtype_code(tensor)
        if tensor.dtype not in SKETCHED:
            known = ", ".join(dtype_name(dtype) for dtype in SKETCHED)
            raise TypeError(
                f"{name}: dtype {dtype_name(tensor.dtype)} is not sketched; those that are: {known}"
            )
        there = via_c.host(tensor)
        kept.append(there)
        given.append((code, there, _seed(name)))
    size = sum(tensor.nbytes for tensor in kept)
    return via_c.sketch(given, via_c.threads_for(size, threads))


def sketch_distance(a: Tensor, b: Tensor) -> float:
    """How far what `a` and `b` are sketches of is apart, in the 2-norm, as `sketch` bounds it.

    Its square is without bias. NaN where a bucket of either is not finite. The same bits for every
    thread count and instruction set.
    """
    both = compare(a, b)
    # Equal buckets add no difference, also where both are NaN; the sum of squares knows of them.
    if not math.isfinite(both.sum_squares + both.sum_squares_difference):
        return math.nan
    return math.sqrt(both.sum_squares_difference)


def sketch_norm(a: Tensor) -> float:
    """The 2-norm of what `a` is a sketch of; as `sketch_distance` from a sketch of zeros."""
    return sketch_distance(a, torch.zeros_like(a))


def sketch_error(confidence: float) -> float:
    """Within which share of the true distance `sketch_distance` is, with probability `confidence`
    or more: Chebyshev's bound of the squared distance, for the side on which the root moves more.

    confidence: in [0, 1). ValueError otherwise. At 0.95 it is 0.073.
    """
    if not 0.0 <= confidence < 1.0:
        raise ValueError(f"confidence={confidence}: at least 0 and below 1")
    share = math.sqrt(_VARIANCE / (BUCKETS * (1.0 - confidence)))
    return 1.0 - math.sqrt(1.0 - share) if share < 1.0 else math.inf


def _spelled(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


@functools.lru_cache(maxsize=1 << 16)  # asked for the same names at every step
def _seed(name: str) -> int:
    found = hashlib.blake2b(_spelled(name), digest_size=8).digest()
    return int.from_bytes(found, "little")
