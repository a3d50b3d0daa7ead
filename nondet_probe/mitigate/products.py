"""Matrix products in slices that depend on the shape alone, each on one thread.

The bits of a product of MKL's depend on the number of threads, which decides how it is cut. Cut by
us, every slice is one call on one thread, and it does not matter which thread makes it. float16,
for which most processors have no products, is multiplied and added in float32 and rounded once.
bfloat16 goes to oneDNN, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe.mitigate.via_c import on_one_thread, product

__all__ = ["PRODUCTS", "goes_to_blas"]

Original = Callable[..., Any]
_DTYPES = (torch.float32, torch.float64)


def _multiply(a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0) -> bool:
    if product(a, b, c, alpha, beta):
        return True
    # Strides that BLAS does not take; the copy's depend on the shape alone.
    return product(a.contiguous(), b.contiguous(), c, alpha, beta)


def _taken(*operands: Tensor) -> bool:
    dtype = operands[0].dtype
    return dtype in _DTYPES and all(
        x.dtype is dtype and not x.is_conj() and not x.is_neg() for x in operands
    )


def goes_to_blas(*operands: Tensor) -> bool:
    """Whether torch gives this product to MKL."""
    return operands[0].dtype in _DTYPES


def _by_way_of_float32(sliced: Callable[..., Any]) -> Callable[..., Any]:
    """The same for float16 too, where torch has no fast product of its own."""

    def run(original: Original, *operands: Tensor, **scales: Any) -> Any:
        if not all(x.dtype is torch.float16 for x in operands):
            return sliced(original, *operands, **scales)

        def narrow(*wide: Tensor, **scales: Any) -> Any:
            """For what cannot be cut into slices."""
            return original(*operands, **scales)

        result = sliced(narrow, *(x.float() for x in operands), **scales)
        return result.to(torch.float16)

    return run


def _mm(original: Original, a: Tensor, b: Tensor) -> Any:
    if _taken(a, b) and a.dim() == 2 and b.dim() == 2 and a.shape[1] == b.shape[0]:
        c = torch.empty(a.shape[0], b.shape[1], dtype=a.dtype)
        if _multiply(a[None], b[None], c[None]):
            return c
    return on_one_thread(original, a, b)


def _bmm(original: Original, a: Tensor, b: Tensor) -> Any:
    if _taken(a, b) and a.dim() == 3 and b.dim() == 3 and _fit(a, b):
        c = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=a.dtype)
        if _multiply(a, b, c):
            return c
    return on_one_thread(original, a, b)


def _addmm(
    original: Original, x: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Any:
    if _taken(x, a, b) and a.dim() == 2 and b.dim() == 2 and a.shape[1] == b.shape[0]:
        c = _start(x, (a.shape[0], b.shape[1]), beta)
        if c is not None and _multiply(a[None], b[None], c[None], float(alpha), float(beta)):
            return c
    return on_one_thread(original, x, a, b, beta=beta, alpha=alpha)


def _baddbmm(
    original: Original, x: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Any:
    if _taken(x, a, b) and a.dim() == 3 and b.dim() == 3 and _fit(a, b):
        c = _start(x, (a.shape[0], a.shape[1], b.shape[2]), beta)
        if c is not None and _multiply(a, b, c, float(alpha), float(beta)):
            return c
    return on_one_thread(original, x, a, b, beta=beta, alpha=alpha)


def _fit(a: Tensor, b: Tensor) -> bool:
    return a.shape[0] == b.shape[0] and a.shape[2] == b.shape[1]


def _start(x: Tensor, shape: tuple[int, ...], beta: Any) -> Tensor | None:
    """What the product is added to; None where the shapes do not fit (torch says how)."""
    c = torch.empty(shape, dtype=x.dtype)
    if x.dim() > len(shape) or any(
        size not in (1, wanted) for size, wanted in zip(x.shape[::-1], shape[::-1], strict=False)
    ):
        return None
    # With beta 0 the addend is not read, not even its NaNs.
    return c.copy_(x) if beta != 0 else c


PRODUCTS: dict[str, Callable[..., Any]] = {
    "aten::mm": _by_way_of_float32(_mm),
    "aten::bmm": _by_way_of_float32(_bmm),
    "aten::addmm": _by_way_of_float32(_addmm),
    "aten::baddbmm": _by_way_of_float32(_baddbmm),
}
"""Overload to function(original, *args, **kwargs)."""
