"""Arguments of ops as their kernels want them."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["with_tensors"]


def with_tensors(
    args: tuple[Any, ...], places: list[int], computed: bool = True
) -> tuple[Any, ...]:
    """Where C++ made a tensor of a number, of which Python is handed the number, a tensor again;
    `args` itself where there is none. The result has the dtype that it has with the number.

    computed: the value counts, so it is not rounded to the dtype of the others; else what looks at
    dtypes alone may want the same one for all.
    """
    found = [n for n in places if n < len(args) and isinstance(args[n], int | float | complex)]
    if not found:
        return args
    dtypes = [x.dtype for x in args if isinstance(x, torch.Tensor)]
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    given = list(args)
    for place in found:
        dtype = None
        if floats and not isinstance(given[place], complex):
            dtype = torch.float64 if computed else floats[0]
        given[place] = torch.tensor(given[place], dtype=dtype)
    return tuple(given)
