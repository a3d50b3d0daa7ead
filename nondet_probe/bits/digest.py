"""A 128-bit fingerprint of a tensor's bits, dtype and shape, in the format "ndp-digest-1"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nondet_probe.bits import device, via_c, via_cuda

__all__ = ["DIGEST_FORMAT", "Digest", "digest", "digests"]

DIGEST_FORMAT = "ndp-digest-1"
"""Name of the format (docs/digest.md); another name whenever any value could change."""


@dataclass(frozen=True, slots=True)
class Digest:
    """hex: 32 lower-case hex digits. Equal and hashable by value."""

    hex: str

    def __str__(self) -> str:
        return self.hex


def digest(tensor: Tensor, *, threads: int | None = None) -> Digest:
    """The fingerprint of all bits of a tensor, its dtype and its shape.

    tensor: any shape and strides, any dtype of `bits.dtypes.CODES`. The value depends on nothing
    else: not on strides (a view in host memory is read where it lies, no copy is made), device (on
    a CUDA device the kernels of `_cuda` compute it there, where this build has them; anything else
    is copied to the host first, as is a tensor with a conj or neg bit), thread count or instruction
    set. Equality is that of bits: -0.0 is not 0.0, NaNs are equal when their payloads
    are. threads: at most so many; by default torch's own number, and one for small tensors.

    Algorithm: every block of 4096 bytes gets two sums of products of its 32-bit words, a key added
    to each word (NH of Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC", CRYPTO 1999, for two ways
    of pairing the words). The j-th sums of all blocks, after a header of dtype and shape, are the
    coefficients of polynomial j over the integers mod p = 2^61 - 1, evaluated at point j; a
    bijection mixes the two values.

    Collision bound: two different tensors, of at most n bytes and d dimensions, that were chosen
    without looking at the keys and points, have the same digest with probability at most

        (2^-32 + T/p)^2,  T = n/2048 + 2d + 6:  2^-64 up to a gigabyte, 2^-62 at a terabyte

    over the draw of keys and points. Why: different dtypes or shapes give different headers, hence
    different polynomials, whatever the data (the leading coefficient is 1, so different degrees
    count too), and a polynomial of degree at most T has at most T roots. With equal headers some
    block differs. Either of its sums agrees with probability at most 2^-32, both with 2^-64: one
    is decided by a key that does not occur in the equation of the other (the last differing word's
    partner; docs/digest.md has the cases). Where sums differ, the polynomials differ and agree at
    their point with probability at most T/p, and the points are independent of each other and of
    the keys. Adding the four cases gives the square. The last block is filled up with zeros; that
    confuses no two tensors, since the header fixes how many bytes are data.

    The keys are fixed and public, so this is no protection against somebody who builds collisions;
    it holds for what training does by itself, structured or not (sign flips, swaps, rolls,
    constants: tests/bits/test_digest.py).

    Raises TypeError for tensors whose bits cannot be read (`via_c`), ValueError for threads < 1.
    """
    code = via_c.dtype_code(tensor)
    workers = via_c.threads_for(tensor.nbytes, threads)
    if tensor.is_cuda and device.why_not() is None:
        return digests([tensor])[0]
    return Digest(via_c.digest(code, via_c.host(tensor), workers))


def digests(tensors: Sequence[Tensor]) -> list[Digest]:
    """The digests of many tensors, in their order: what `digest` says of each.

    Those on a CUDA device are computed there, many by one launch, and the host waits once for each
    device, not for each tensor (parameters, gradients). Raises as `digest` does.
    """
    found: list[Digest | None] = [None] * len(tensors)
    there: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        via_c.dtype_code(tensor)
        if tensor.is_cuda and device.why_not() is None:
            there.setdefault(tensor.device, []).append(place)
        else:
            found[place] = digest(tensor)
    launched = [
        (places, via_cuda.digests([tensors[place] for place in places]))
        for places in there.values()
    ]
    for places, words in launched:
        for place, text in zip(places, via_cuda.hexes(words), strict=True):
            found[place] = Digest(text)
    return [one for one in found if one is not None]
