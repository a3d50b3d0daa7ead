"""Overloads that torch has no deterministic kernel for on a GPU, and what computes them instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from nondet_probe.mitigate import remade_maps as maps
from nondet_probe.mitigate import remade_places as places
from nondet_probe.mitigate import taps
from nondet_probe.mitigate.remade_grid import cudnn_grid_sample, grid_sample

__all__ = ["OF_OTHERS", "PAIRS", "REMADE"]

PAIRS = "in pairs"
"""Added by elementwise steps in an order of the shapes alone."""
OF_OTHERS = "of other overloads"
"""Which show themselves."""


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, written to the first operand."""

    def call(original: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = function(original, x, *args, **kwargs)
        return result if result is NotImplemented else x.copy_(result)

    return call


_PAIRED: dict[str, Callable[..., Any]] = {
    "upsample_linear1d_backward": maps.interpolation(taps.linear),
    "upsample_bilinear2d_backward": maps.interpolation(taps.linear),
    "upsample_trilinear3d_backward": maps.interpolation(taps.linear),
    "upsample_bicubic2d_backward": maps.interpolation(taps.cubic, keeps_layout=False),
    "_upsample_bilinear2d_aa_backward": maps.interpolation(taps.smooth_linear),
    "_upsample_bicubic2d_aa_backward": maps.interpolation(taps.smooth_cubic, keeps_layout=False),
    "replication_pad1d_backward": maps.replication,
    "replication_pad2d_backward": maps.replication,
    "replication_pad3d_backward": maps.replication,
    "reflection_pad1d_backward": maps.reflection,
    "reflection_pad2d_backward": maps.reflection,
    "reflection_pad3d_backward": maps.reflection,
    "_adaptive_avg_pool2d_backward": maps.adaptive_average(2),
    "_adaptive_avg_pool3d_backward": maps.adaptive_average(3),
    "avg_pool3d_backward": maps.average,
    "cumsum": places.cumsum,
    "cumsum_": _in_place(places.cumsum),
}
_OTHERS: dict[str, Callable[..., Any]] = {
    "adaptive_max_pool2d_backward": places.max_pool(2),
    "adaptive_max_pool3d_backward": places.max_pool(3),
    "fractional_max_pool2d_backward": places.max_pool(2),
    "fractional_max_pool3d_backward": places.max_pool(3),
    "max_pool3d_with_indices_backward": places.max_pool(3),
    "max_unpool2d": places.unpool,
    "max_unpool3d": places.unpool,
    "put_": places.put,
    "_embedding_bag_dense_backward": places.bag_of_maxima,
    "bincount": places.bincount,
    "histc": places.histc,
    "nll_loss2d_forward": places.nll_loss2d,
    "kthvalue": places.kthvalue,
    "cudnn_grid_sampler_backward": cudnn_grid_sample,
    "grid_sampler_2d_backward": grid_sample,
    "grid_sampler_3d_backward": grid_sample,
    "median.dim": places.median,
    "nanmedian.dim": places.nanmedian,
}

REMADE: dict[str, tuple[str, Callable[..., Any]]] = {
    **{f"aten::{name}": (PAIRS, function) for name, function in _PAIRED.items()},
    **{f"aten::{name}": (OF_OTHERS, function) for name, function in _OTHERS.items()},
}
"""Overload to how, and function(original, *args, **kwargs), which gives ATen's result or
NotImplemented for what it does not take."""
