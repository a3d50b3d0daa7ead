"""What is known of torch's kernels for CUDA, by operator: `aten::put` is `put`, `put_`, `put.out`.

Source: the documentation of torch.use_deterministic_algorithms (torch 2.13), whose two lists are
SWITCHED and BREAKING here, under the names that the dispatcher has for them; of attention, what its
backward kernels warn of themselves; of products, cuBLAS's notes on reproducible results. Nothing of
it was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from nondet_probe.env.torch_private import is_elementwise
from nondet_probe.mitigate.measured import operator

__all__ = ["BLAS", "BREAKING", "STRICT", "SWITCHED", "Breaking", "adds_up"]

Applies = Callable[[tuple[Any, ...], dict[str, Any]], bool]


def _always(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return True


def _floats(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return bool((kwargs.get("dtype") or args[0].dtype).is_floating_point or args[0].is_complex())


def _is(place: int, name: str, value: Any) -> Applies:
    def applies(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return bool((args[place] if len(args) > place else kwargs.get(name)) == value)

    return applies


def _weighted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return isinstance(args[1] if len(args) > 1 else kwargs.get("weights"), Tensor)


def _indexed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return len(args) > 1 or "dim" in kwargs


def _added(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return bool((args[3] if len(args) > 3 else kwargs.get("reduction", 1)) != 0)


@dataclass(frozen=True)
class Breaking:
    """reason: why two runs may differ. applies(args, kwargs): whether it does to a call."""

    reason: str
    applies: Applies = _always


_ATOMICS = Breaking("adds with atomics, in whatever order they come")
_LAST = Breaking("of several values for one place, whichever comes last stays")
_TIES = Breaking("which of several equal ones is named depends on the run", _indexed)

BREAKING: dict[str, Breaking] = {
    **dict.fromkeys(
        (
            "aten::_adaptive_avg_pool2d_backward", "aten::_adaptive_avg_pool3d_backward",
            "aten::adaptive_avg_pool3d_backward", "aten::adaptive_max_pool2d_backward",
            "aten::adaptive_max_pool3d_backward", "aten::avg_pool3d_backward",
            "aten::fractional_max_pool2d_backward", "aten::fractional_max_pool3d_backward",
            "aten::upsample_linear1d_backward", "aten::upsample_bilinear2d_backward",
            "aten::upsample_bicubic2d_backward", "aten::upsample_trilinear3d_backward",
            "aten::_upsample_bilinear2d_aa_backward", "aten::_upsample_bicubic2d_aa_backward",
            "aten::_upsample_lanczos2d_aa_backward",
            "aten::reflection_pad1d_backward", "aten::reflection_pad2d_backward",
            "aten::reflection_pad3d_backward",
            # Deterministic in F.pad alone, which takes another way under the mode.
            "aten::replication_pad1d_backward", "aten::replication_pad2d_backward",
            "aten::replication_pad3d_backward",
            "aten::_ctc_loss_backward", "aten::_cudnn_ctc_loss",
            "aten::grid_sampler_2d_backward", "aten::grid_sampler_3d_backward",
            "aten::cudnn_grid_sampler_backward",  # not in the documentation
            "aten::index_reduce",
        ),
        _ATOMICS,
    ),
    "aten::nll_loss2d_forward": Breaking(_ATOMICS.reason, _added),
    "aten::_embedding_bag_dense_backward": Breaking(_ATOMICS.reason, _is(7, "mode", 2)),
    "aten::bincount": Breaking(_ATOMICS.reason, _weighted),
    "aten::histc": Breaking(_ATOMICS.reason, _floats),
    "aten::scatter_reduce": Breaking("multiplies with atomics", _is(4, "reduce", "prod")),
    "aten::cumsum": Breaking("adds in an order of its scan's blocks", _floats),
    "aten::max_unpool2d": _LAST,
    "aten::max_unpool3d": _LAST,
    "aten::put": Breaking("writes, or adds with atomics, in whatever order"),
    "aten::median": _TIES,
    "aten::nanmedian": _TIES,
    "aten::kthvalue": _TIES,
    # Not chosen under the mode, but a graph made outside may have it.
    **dict.fromkeys(
        ("aten::_scaled_dot_product_cudnn_attention_backward", "aten::_cudnn_attention_backward"),
        Breaking("cuDNN's attention has no deterministic derivative"),
    ),
}  # fmt: skip
"""Raise under the mode. What is made of others here (remade.py) is so where it cannot be."""

SWITCHED = {
    f"aten::{name}"
    for name in (
        "_index_put_impl", "_unsafe_index_put", "conv_depthwise3d", "convolution_backward",
        "cudnn_convolution", "cudnn_convolution_add_relu", "cudnn_convolution_relu",
        "cudnn_convolution_transpose", "index_add", "index_copy", "index_put",
        "max_pool3d_with_indices_backward", "scatter", "scatter_add", "scatter_reduce",
        "slow_conv_dilated2d", "slow_conv_dilated3d", "slow_conv_transpose2d",
        "slow_conv_transpose3d",
    )
}  # fmt: skip
"""Deterministic under the mode. The derivatives of gather, index_select and repeat_interleave come
to these."""

STRICT = {
    f"aten::{name}"
    for name in (
        "_efficient_attention_backward", "_flash_attention_backward",
        "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_flash_attention_backward",
    )
}  # fmt: skip
"""Deterministic under the mode where it does not only warn."""

BLAS = {
    f"aten::{name}"
    for name in (
        "_addmm_activation", "_int_mm", "_scaled_mm", "addbmm", "addmm", "addmv", "baddbmm", "bmm",
        "dot", "mm", "mv", "vdot",
    )
}  # fmt: skip
"""cuBLAS's, which needs CUBLAS_WORKSPACE_CONFIG."""

# Neither sums nor random numbers (of which a GPU draws as many at once as it has room for).
_NOTHING_ADDED = {
    f"aten::{name}"
    for name in (
        "_aminmax", "_amp_foreach_non_finite_check_and_unscale", "_amp_update_scale",
        "_assert_async", "_chunk_cat", "_cudnn_rnn_flatten_weight", "_cummax_helper",
        "_cummin_helper", "_functional_assert_async", "_fused_adagrad", "_fused_adam",
        "_fused_adamw", "_fused_sdp_choice", "_fused_sgd", "_local_scalar_dense", "_masked_scale",
        "_prelu_kernel", "_prelu_kernel_backward", "_stack", "_to_copy", "_unique2", "_unsafe_view",
        "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
        "_use_cudnn_ctc_loss", "adaptive_max_pool2d", "adaptive_max_pool3d", "all", "amax", "amin",
        "aminmax", "any", "arange", "argmax", "argmin", "as_strided",
        "binary_cross_entropy_backward", "bucketize", "cat", "channel_shuffle", "complex", "copy",
        "copysign", "count_nonzero", "elu", "elu_backward", "empty", "empty_like", "empty_strided",
        "eq", "equal", "eye", "fill", "flip", "floor_divide", "fractional_max_pool2d",
        "fractional_max_pool3d", "gather", "gcd", "ge", "gelu", "gelu_backward", "glu",
        "glu_backward", "gt", "hardshrink_backward", "hardsigmoid_backward", "hardswish",
        "hardswish_backward", "hardtanh_backward", "heaviside", "huber_loss_backward", "im2col",
        "index", "index_fill", "index_select", "is_set_to", "isin", "item", "lcm", "le",
        "leaky_relu_backward", "linspace", "log_sigmoid_backward", "log_sigmoid_forward",
        "logspace", "lt", "masked_fill", "masked_scatter", "masked_select", "max",
        "max_pool2d_with_indices", "max_pool3d_with_indices", "min", "mish", "mish_backward",
        "mse_loss_backward", "narrow_copy", "native_channel_shuffle", "ne", "nll_loss2d_backward",
        "nll_loss_backward", "nonzero", "nonzero_static", "pixel_shuffle", "pixel_unshuffle",
        "polar", "range", "record_stream", "reflection_pad1d", "reflection_pad2d",
        "reflection_pad3d", "repeat_interleave", "replication_pad1d", "replication_pad2d",
        "replication_pad3d", "resize", "roll", "searchsorted", "set", "smooth_l1_loss_backward",
        "softplus", "softplus_backward", "softshrink_backward", "sort", "split_with_sizes_copy",
        "take", "threshold", "topk", "tril", "tril_indices", "triu", "triu_indices",
        "unique_consecutive", "unique_dim", "upsample_nearest1d", "upsample_nearest2d",
        "upsample_nearest3d", "where", "zero",
    )
}  # fmt: skip


@cache
def adds_up(name: str) -> bool:
    """Whether an overload may add numbers up, or draw them, in an order that is its own."""
    base = operator(name)
    if base.startswith("aten::_foreach_"):
        return base == "aten::_foreach_norm"
    return base not in _NOTHING_ADDED and not is_elementwise(name)
