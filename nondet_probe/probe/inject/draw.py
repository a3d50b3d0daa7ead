"""Which element: drawn by a seed without replacement, or as Summers and Dinneen's code draws."""

from __future__ import annotations

import hashlib

import torch

from nondet_probe.errors import UsageError

__all__ = ["drawn", "paper_stem"]


def drawn(seed: int, number: int, total: int) -> int:
    """The number-th (from 0) of the elements 0 to total - 1 in the order that `seed` shuffles them
    into: as many different ones as there are, each order as likely as any other.

    A shuffle by Fisher and Yates, as far as it is needed; its k-th random number is BLAKE2b-128 of
    "seed:k", the same on every machine and for ever. Raises UsageError beyond the last.
    """
    if number >= total:
        raise UsageError(
            f"number {number} of the draws: the chosen tensors have {total} elements, and none is "
            "drawn twice"
        )
    moved: dict[int, int] = {}
    found = 0
    for place in range(number + 1):
        other = place + _random(seed, place) % (total - place)
        found = moved.get(other, other)
        moved[other] = moved.get(place, place)
    return found


def paper_stem(seed: int, total: int) -> tuple[int, int]:
    """(element, direction of the step of one ulp) as the original draws them: with PyTorch's CPU
    generator, the element first. Seeds may repeat each other."""
    own = torch.Generator().manual_seed(seed)
    element = int(torch.randint(0, total, (1,), generator=own))
    return element, 1 if float(torch.rand(1, generator=own)) > 0.5 else -1


def _random(seed: int, number: int) -> int:
    whole = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=16).digest()
    return int.from_bytes(whole, "big")
