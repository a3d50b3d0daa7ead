"""Inputs for measuring an op at a size: the same on every machine, contiguous, of n elements.

What adds where an index says gets an index that hits 1000 places, so that threads meet at them.
Matrices have 1024 columns; n below that is one row, and what does not fill a row is left out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "COLUMNS",
    "PLACES",
    "Inputs",
    "attended",
    "classified",
    "factors",
    "matrix",
    "norm_rows",
    "placed",
    "row_and_gradient",
    "segments",
    "taken_rows",
    "vector",
    "vectors",
    "weighted",
]

Inputs = tuple[Tensor, ...]

PLACES = 1000
COLUMNS = 1024
_SEED = 20


def _normal(shape: int | tuple[int, ...], dtype: torch.dtype, stream: int = 0) -> Tensor:
    """Standard normal numbers; torch.randn's depend on the instruction set.

    Drawn in float64 for float64, else in float32 and rounded. stream: tells the inputs of one case
    apart.
    """
    draw = np.random.default_rng((_SEED, stream))
    if dtype is torch.float64:
        return torch.from_numpy(draw.standard_normal(shape))
    return torch.from_numpy(draw.standard_normal(shape, dtype=np.float32)).to(dtype)


def _numbers(n: int, below: int) -> Tensor:
    """n uniform integers from 0 up."""
    return torch.from_numpy(np.random.default_rng((_SEED, 99)).integers(below, size=n))


def _shape(n: int, columns: int = COLUMNS) -> tuple[int, int]:
    columns = min(columns, n)
    return n // columns, columns


def vector(n: int, dtype: torch.dtype) -> Inputs:
    return (_normal(n, dtype),)


def vectors(n: int, dtype: torch.dtype) -> Inputs:
    """Two of them."""
    return _normal(n, dtype), _normal(n, dtype, 1)


def matrix(n: int, dtype: torch.dtype) -> Inputs:
    return (_normal(_shape(n), dtype),)


def factors(n: int, dtype: torch.dtype) -> Inputs:
    """Two matrices of n elements whose product is 32 by 32: a sum over n/32 in each element."""
    inner = max(1, n // 32)
    return _normal((32, inner), dtype), _normal((inner, 32), dtype, 1)


def row_and_gradient(n: int, dtype: torch.dtype) -> Inputs:
    """A matrix, and the gradient of what is computed of it in its shape."""
    return _normal(_shape(n), dtype), _normal(_shape(n), dtype, 1)


def attended(n: int, dtype: torch.dtype) -> Inputs:
    """Queries, keys and values of n elements each, 64 a position and at most 256 positions a head,
    and the gradient of what is computed of them."""
    positions = max(1, n // 64)
    shape = (max(1, positions // 256), min(positions, 256), min(n, 64))
    query, key, value, gradient = (_normal(shape, dtype, stream) for stream in range(4))
    return query, key, value, gradient


def norm_rows(n: int, dtype: torch.dtype) -> Inputs:
    """A matrix, a weight and a bias for each column, and the gradient of the normalised matrix."""
    shape = _shape(n)
    weight, bias = _normal(shape[1], dtype, 1), _normal(shape[1], dtype, 2)
    return _normal(shape, dtype), weight, bias, _normal(shape, dtype, 3)


def classified(n: int, dtype: torch.dtype) -> Inputs:
    """A matrix of scores, a row an example, and the class of each."""
    rows, columns = _shape(n)
    return _normal((rows, columns), dtype), _numbers(rows, columns)


def placed(n: int, dtype: torch.dtype) -> Inputs:
    """A table, n places in it, and what is added there."""
    return torch.zeros(PLACES, dtype=dtype), _numbers(n, PLACES), _normal(n, dtype)


def taken_rows(n: int, dtype: torch.dtype) -> Inputs:
    """A table of rows of 64, the numbers of those that are taken, and the gradient of these."""
    count, columns = _shape(n, 64)
    table, gradient = _normal((PLACES, columns), dtype), _normal((count, columns), dtype, 1)
    return table, _numbers(count, PLACES), gradient


def weighted(n: int, dtype: torch.dtype) -> Inputs:
    """n numbers of bins, and their weights."""
    return _numbers(n, PLACES), _normal(n, dtype)


def segments(n: int, dtype: torch.dtype) -> Inputs:
    """n elements, and the uneven lengths of the segments that they are in, about 1000 each."""
    count = max(1, n // PLACES)
    return _normal(n, dtype), torch.bincount(_numbers(n, count), minlength=count)
