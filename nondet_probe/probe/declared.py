"""What PyTorch says of its own ops: which are nondeterministic by its documentation.

The table is the docstring of `torch.use_deterministic_algorithms` (2.13), its modules and functions
as the overloads that a dispatch mode sees of them. `torch.Tag.nondeterministic_bitwise` would say
it too, but no ATen op carries it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.torch_private import OpOverload

__all__ = ["NAMES", "RAISES", "SOURCE", "SWITCHES", "arguments_of", "declared"]

SOURCE = "docstring of torch.use_deterministic_algorithms, torch 2.13"
SWITCHES = "deterministic on request"
"""Nondeterministic by default; under the flag another kernel runs."""
RAISES = "raises on request"
"""Nondeterministic; under the flag the call is refused."""

Arguments = Mapping[str, Any]
_Rule = Callable[[bool, Arguments], str | None]  # (on CUDA?, the arguments by name)


def _cuda(status: str) -> _Rule:
    return lambda cuda, given: status if cuda else None


def _everywhere(status: str) -> _Rule:
    return lambda cuda, given: status


def _index_put(cuda: bool, given: Arguments) -> str | None:
    return None if cuda and given.get("accumulate") else SWITCHES


def _put(cuda: bool, given: Arguments) -> str | None:
    return SWITCHES if given.get("accumulate") and not cuda else RAISES


def _scatter_reduce(cuda: bool, given: Arguments) -> str | None:
    if not cuda:
        return None
    return {"sum": SWITCHES, "mean": SWITCHES, "prod": RAISES}.get(str(given.get("reduce")))


def _cumsum(cuda: bool, given: Arguments) -> str | None:
    x = given.get("self")
    exact = isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex())
    return RAISES if cuda and not exact else None


def _bincount(cuda: bool, given: Arguments) -> str | None:
    return RAISES if cuda and given.get("weights") is not None else None


def _bag(cuda: bool, given: Arguments) -> str | None:
    return RAISES if cuda and given.get("mode") == 2 else None  # 2: max


_RULES: dict[str, _Rule] = {
    "index_put": _index_put,
    "index_put_": _index_put,
    "_index_put_impl_": _index_put,
    "put": _put,
    "put_": _put,
    "index_copy": _everywhere(SWITCHES),
    "index_copy_": _everywhere(SWITCHES),
    "scatter_reduce": _scatter_reduce,
    "scatter_reduce_": _scatter_reduce,
    "cumsum": _cumsum,
    "cumsum_": _cumsum,
    "bincount": _bincount,
    "_embedding_bag_dense_backward": _bag,
    "max_unpool2d": _everywhere(RAISES),
    "max_unpool3d": _everywhere(RAISES),
    **dict.fromkeys(
        (
            "convolution",
            "convolution_backward",
            "cudnn_convolution",
            "cudnn_convolution_transpose",
            "index_add",
            "index_add_",
            "max_pool3d_with_indices_backward",
            "replication_pad1d_backward",
            "replication_pad2d_backward",
            "replication_pad3d_backward",
            "scatter_add",
            "scatter_add_",
        ),
        _cuda(SWITCHES),
    ),
    **dict.fromkeys(
        (
            "_adaptive_avg_pool2d_backward",
            "_adaptive_avg_pool3d_backward",
            "_ctc_loss_backward",
            "adaptive_max_pool2d_backward",
            "avg_pool3d_backward",
            "fractional_max_pool2d_backward",
            "fractional_max_pool3d_backward",
            "grid_sampler_2d_backward",
            "grid_sampler_3d_backward",
            "histc",
            "nll_loss2d_forward",
            "reflection_pad1d_backward",
            "reflection_pad2d_backward",
            "reflection_pad3d_backward",
            "upsample_bicubic2d_backward",
            "upsample_bilinear2d_backward",
            "upsample_linear1d_backward",
            "upsample_trilinear3d_backward",
        ),
        _cuda(RAISES),
    ),
}
# Only these overloads of an op of which others are not meant.
_OVERLOADS: dict[str, _Rule] = {
    "scatter.src": _cuda(SWITCHES),
    "scatter_.src": _cuda(SWITCHES),
    "median.dim": _cuda(RAISES),
}

NAMES = frozenset(f"aten.{name}" for name in (*_RULES, *_OVERLOADS))
"""Ops, and overloads, with a rule: for a quick look before the arguments are read."""


def arguments_of(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names in the schema; those left away are not in it."""
    names = [argument.name for argument in op._schema.arguments]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def declared(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """SWITCHES or RAISES where PyTorch calls this call nondeterministic; None where it is silent,
    and for what is no ATen op."""
    if not isinstance(op, OpOverload) or op.namespace != "aten":
        return None
    if torch.Tag.nondeterministic_bitwise in op.tags:
        return SWITCHES
    name = op._schema.name.removeprefix("aten::")
    rule = _RULES.get(name) or _OVERLOADS.get(f"{name}.{op._schema.overload_name}")
    if rule is None:
        return None
    given = arguments_of(op, args, kwargs)
    return rule(any(isinstance(x, Tensor) and x.is_cuda for x in given.values()), given)
