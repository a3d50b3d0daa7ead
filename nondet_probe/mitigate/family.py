"""ATen overloads that an op of this library can answer, and how its arguments are passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nondet_probe import ops
from nondet_probe.ops.registry import Guarantee, Variant, variants

__all__ = ["FAMILY", "Relative", "weakest"]


@dataclass(frozen=True)
class Relative:
    """op: its name in the registry. call(variant, *args, **kwargs) takes ATen's arguments and gives
    ATen's result, or NotImplemented for what the op does not take."""

    op: str
    call: Callable[..., Any]


def weakest(op: str, guarantee: Guarantee) -> Variant | None:
    """The variant with the weakest guarantee that is enough; None where there is none."""
    enough = [variant for variant in variants(op) if variant.guarantee >= guarantee]
    return min(enough, key=lambda variant: variant.guarantee, default=None)


def _whole(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def call(variant: str, x: Tensor, *, dtype: Any = None) -> Any:
        return NotImplemented if dtype not in (None, x.dtype) else function(x, variant=variant)

    return _if_taken(call)


def _over_dims(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def call(
        variant: str, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Any:
        if dtype not in (None, x.dtype):
            return NotImplemented
        # For ATen no dimension is every dimension.
        return function(x, dim if dim or dim == 0 else None, keepdim, variant=variant)

    return _if_taken(call)


def _index_put(
    variant: str, x: Tensor, indices: Any, values: Tensor, accumulate: bool = False
) -> Any:
    if not accumulate:
        return NotImplemented
    return ops.index_put(x, indices, values, variant=variant)


def _index_put_in_place(
    variant: str,
    x: Tensor,
    indices: Any,
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Any:
    result = _index_put(variant, x, indices, values, accumulate)
    return result if result is NotImplemented else x.copy_(result)


def _index_add(
    variant: str, x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1
) -> Any:
    return ops.index_add(x, dim, index, source, alpha=alpha, variant=variant)


def _scatter_add(variant: str, x: Tensor, dim: int, index: Tensor, src: Tensor) -> Any:
    return ops.scatter_add(x, dim, index, src, variant=variant)


def _dot(variant: str, a: Tensor, b: Tensor) -> Any:
    return ops.dot(a, b, variant=variant)


def _if_taken(call: Callable[..., Any]) -> Callable[..., Any]:
    """What the op refuses (a dtype, a layout, an index out of range) is torch's to answer."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except (TypeError, ValueError, IndexError):
            return NotImplemented

    return guarded


FAMILY: dict[str, Relative] = {
    "aten::sum": Relative("sum", _whole(ops.sum)),
    "aten::sum.dim_IntList": Relative("sum", _over_dims(ops.sum)),
    "aten::mean": Relative("mean", _whole(ops.mean)),
    "aten::mean.dim": Relative("mean", _over_dims(ops.mean)),
    "aten::dot": Relative("dot", _if_taken(_dot)),
    "aten::index_put": Relative("index_put", _if_taken(_index_put)),
    "aten::_index_put_impl_": Relative("index_put", _if_taken(_index_put_in_place)),
    "aten::index_add": Relative("index_add", _if_taken(_index_add)),
    "aten::scatter_add": Relative("scatter_add", _if_taken(_scatter_add)),
}
"""Overload to relative. A new op of the library needs a function here and a line."""
