"""Threads and products in `nondet_probe._C`; the only module in `mitigate` that imports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UsageError

__all__ = ["each_on_one_thread", "on_one_thread", "product", "require_threads"]


def require_threads() -> None:
    """UsageError where torch's threads cannot be set for one thread at a time."""
    torch.get_num_threads()
    try:
        _C.restore_threads(_C.set_one_thread())
    except RuntimeError as error:
        raise UsageError(f"reproducible needs torch's OpenMP: {error}") from None


def on_one_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, with torch's and MKL's kernels on the calling thread alone.

    Not by `torch.set_num_threads`, which sets MKL's count for the whole process. The counts of
    every other thread, and of this one afterwards, are what they were.
    """
    # A thread's first question makes torch set its count: it must not come within.
    if torch.get_num_threads() == 1:
        return function(*args, **kwargs)
    saved = _C.set_one_thread()
    try:
        return function(*args, **kwargs)
    finally:
        _C.restore_threads(saved)


def each_on_one_thread(items: int, body: Callable[[int], None]) -> None:
    """body(item) for item = 0..items-1, each on one thread, side by side on torch's threads."""
    # As above: each of these threads is asked before its count is set.
    _C.each_on_one_thread(torch.get_num_threads(), items, torch.get_num_threads, body)


def product(a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0) -> bool:
    """c := beta c + alpha a b, [batch, m, k] by [batch, k, n], in slices of csrc/slices.hpp.

    The three are float32 or all float64. False, with nothing done, where it cannot be: no BLAS
    whose threads can be set, strides that BLAS does not take, sizes of 2**31 or more.
    """
    batch, m, k = a.shape
    return _C.product(
        a.dtype is torch.float64,
        (batch, m, k, b.shape[2]),
        _located(a),
        _located(b),
        _located(c),
        alpha,
        beta,
        torch.get_num_threads(),
    )


def _located(x: Tensor) -> tuple[int, int, int, int]:
    batch, row, column = x.stride()
    return x.data_ptr(), batch, row, column
