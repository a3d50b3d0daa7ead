"""Scaled dot product attention, with a gradient of the queries whose order of additions is known.

    >>> import torch
    >>> x = torch.ones(1, 2, 4)
    >>> attention(x, x, x)
    tensor([[[1., 1., 1., 1.],
             [1., 1., 1., 1.]]])

On CPU it is products and a softmax in fixed orders, plainly, for reference; on a GPU it is one
kernel forward and one backward, in Triton. docs/ops/attention.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.ops import backends
from nondet_probe.ops.checks import check_dtype
from nondet_probe.ops.matmul import matmul
from nondet_probe.ops.registry import Guarantee, Variant, register, variants
from nondet_probe.ops.softmax import softmax

__all__ = ["attention"]

register(
    Variant(
        op="attention",
        name="fixed_order",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound="that of two products (fixed_split) and a softmax, each rounded to the dtype",
        extra_memory="scores, weights and their gradients: 4 numbers a query and key",
        worst_case="long sequences: memory and time are those of all scores",
        dtypes=(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        doc="matmul by fixed_split, softmax by fixed_order, matmul: a plain reference.",
    )
)
_DEFAULT = {"cpu": "fixed_order", "triton": "split_buffers"}


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    variant: str | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """softmax(query @ key^T * scale) @ value, over the last two dimensions.

    query: (..., L, D), key and value: (..., S, D), of the same leading dimensions and one dtype:
    float64, float32, bfloat16 or float16 on cpu; float32, bfloat16 or float16 on cuda, D up to 128.
    is_causal: query i attends to keys 0 to i. scale: None is 1/sqrt(D).
    variant: how the gradient of the queries is added up. On cpu "fixed_order"; on cuda
        "split_buffers", "semaphore_ordered" or "atomic". None is the first of these.
    threads: the most to use on cpu; None is torch.get_num_threads().
    backend: "cpu" or "triton"; None is by the tensors' device.

    Differentiable once, in reverse mode. Raises UnknownNameError for an unknown variant, TypeError
    for devices, dtypes and layouts that are not taken, UsageError for shapes that do not fit,
    threads below 1 and a backend that cannot be used.
    """
    for name, given in (("query", query), ("key", key), ("value", value)):
        if not isinstance(given, Tensor):
            raise TypeError(f"attention takes a torch.Tensor as {name}, got {type(given).__name__}")
    place = backend or ("triton" if query.is_cuda else "cpu")
    if place not in backends.BACKENDS:
        raise unknown_name("backend", place, backends.BACKENDS)
    variant = _variant(variant, place)
    kernels = backends.kernels("attention", variant, place, query, key, value, threads=threads)
    _check_shapes(query, key, value)
    if scale is None:
        scale = 1 / math.sqrt(max(query.shape[-1], 1))
    if kernels is not None:
        if query.shape[-1] > 128:
            raise UsageError(
                f"attention variant {variant!r}: backend {place!r} takes D up to 128, got "
                f"{query.shape[-1]}"
            )
        rows = [x.reshape(-1, *x.shape[-2:]) for x in (query, key, value)]
        result: Tensor = kernels.attention(*rows, is_causal, scale, variant)
        return result.view(query.shape)
    check_dtype("attention", variant, query)
    scores = matmul(query, key.mT, threads=threads) * scale
    if is_causal:
        rows_and_keys = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool)
        scores = scores.masked_fill(rows_and_keys.triu(1), float("-inf"))
    return matmul(softmax(scores, -1, threads=threads), value, threads=threads)


def _variant(given: str | None, place: str) -> str:
    if given is None:
        return _DEFAULT.get(place, _DEFAULT["triton"])  # cuda has none, which is said later
    on_cpu = [variant.name for variant in variants("attention")]
    elsewhere = list(backends.offers("triton")["attention"])
    if given not in on_cpu + elsewhere:
        raise unknown_name("variant of attention", given, on_cpu + elsewhere)
    if place == "cpu" and given not in on_cpu:
        raise UsageError(
            f"attention variant {given!r}: backend 'cpu' has {', '.join(on_cpu)}; "
            f"{', '.join(elsewhere)} are those of 'triton'"
        )
    return given


def _check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
    if query.dim() < 2 or key.shape != value.shape or key.dim() != query.dim():
        raise UsageError(f"attention takes (..., L, D) and twice (..., S, D), got {shapes}")
    if key.shape[:-2] != query.shape[:-2] or key.shape[-1] != query.shape[-1]:
        raise UsageError(
            f"attention takes equal leading dimensions and equal last ones, got {shapes}"
        )
    if key.shape[-2] == 0:
        raise UsageError(f"attention takes one key or more, got {shapes}")
    if not query.dtype == key.dtype == value.dtype:
        raise TypeError(
            f"attention takes tensors of one dtype, got {query.dtype}, {key.dtype} and "
            f"{value.dtype}"
        )
