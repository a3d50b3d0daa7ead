"""What the arguments of an op are: the way into `_C`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from nondet_probe import _C

__all__ = ["FITS_WITH_GRADIENT", "PLAIN_TENSORS", "look_at"]

PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)
"""The classes of tensors that leave all questions to torch."""
FITS_WITH_GRADIENT = 2

Types = Sequence[type]


def look_at(kinds: Sequence[tuple[Types, Types]]) -> Callable[[tuple[object, ...]], int]:
    """A function of the arguments of a call: 0 unless all of them are of the types given, those in
    a list too, and all tensors dense on the CPU with their numbers as they are; else 1, or
    FITS_WITH_GRADIENT where one of these requires grad.

    kinds: types of each argument, which may be list, and of a list's elements.
    """
    return _C.Arguments(kinds, PLAIN_TENSORS, torch.strided).look
