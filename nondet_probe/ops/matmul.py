"""Matrix products in four variants, from no guarantee to correctly rounded.

    >>> import torch
    >>> a = torch.tensor([[1e8, 1.0, -1e8]])
    >>> b = torch.ones(3, 1)
    >>> matmul(a, b)
    tensor([[0.]])
    >>> matmul(a, b, variant="exact")
    tensor([[1.]])

What each variant promises, its error bound and its cost: `registry.variants("matmul")`,
docs/ops/matmul.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe.ops import backends
from nondet_probe.ops.checks import check_dtype, check_memory
from nondet_probe.ops.define import define
from nondet_probe.ops.products import exact_dot, numbers
from nondet_probe.ops.rational import round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["folded", "matmul", "matmul_ref", "shape_of_product"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

register(
    Variant(
        op="matmul",
        name="splitk_atomic",
        guarantee=Guarantee.NONE,
        cross_device=False,
        batch_invariant=False,
        error_bound=(
            "d u/(1 - d u) |a||b| + K m, d = min(K, 256) + ceil(K/256) - 1, m half the smallest "
            "subnormal of the sums; then one rounding to the dtype"
        ),
        extra_memory="M N sums, and up to 1.1 (fp64: 2.2) MiB a thread",
        worst_case=(
            "from two threads and K > 512 up every call may give other bits; adding to shared sums "
            "takes longer than multiplying where K is short"
        ),
        dtypes=_DTYPES,
        doc="K is shared out in blocks of 256; threads add their partial products to one result.",
    )
)
register(
    Variant(
        op="matmul",
        name="splitk_ordered",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "d u/(1 - d u) |a||b| + K m, d = min(K, 256) + ceil(ceil(K/256)/16) + 14, m half the "
            "smallest subnormal of the sums; then one rounding to the dtype"
        ),
        extra_memory="16 M N sums, and up to 1.1 (fp64: 2.2) MiB a thread",
        worst_case="large M and N: the partial products take more memory than anything else",
        dtypes=_DTYPES,
        doc="At most 16 slices of K, cut by K alone, kept apart and added in order.",
    )
)
register(
    Variant(
        op="matmul",
        name="fixed_split",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "d u/(1 - d u) |a||b| + K m, d = min(K, 256) + ceil(K/256) - 1, m half the smallest "
            "subnormal of the sums; then one rounding to the dtype; infinite or NaN where a "
            "partial sum overflows"
        ),
        extra_memory="up to 1.1 (fp64: 2.2) MiB a thread",
        worst_case=(
            "long K with M and N below 64: few threads; x86 without FMA: some forty times slower; "
            "cancellation: the bound is relative to |a||b|, not to the result"
        ),
        dtypes=_DTYPES,
        doc="Chains of 256 fused multiply-adds, added in order: each element depends on K alone.",
    )
)
register(
    Variant(
        op="matmul",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of every element, always",
        extra_memory="0.6 MiB a thread",
        worst_case=(
            "an oracle, for tests: some 100 times as slow as fixed_split, fp64 (whose products are "
            "made of integers) 400 times; more on products that span more than 70 binades"
        ),
        dtypes=_DTYPES,
        doc="Exact sums of exact products, in fixed-point numbers wide enough for them.",
    )
)


def matmul(
    a: Tensor,
    b: Tensor,
    *,
    variant: str = "fixed_split",
    threads: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """The matrix product of a and b, with the shapes that torch.matmul takes and gives.

    a: (..., M, K) or (K,). b: (..., K, N) or (K,); batch dimensions broadcast. Tensors of one dtype
    on cpu, or on cuda for Triton, float64, float32, bfloat16 or float16, with any strides.
    variant: "fixed_split" (the default: the strongest promise that is also fast; a row's bits
        depend neither on the threads nor on the other rows), "splitk_ordered", "splitk_atomic" or
        "exact". Never replaced by another one.
    threads: the most to use; None is torch.get_num_threads(). backend: "cpu" or "triton" (which has
        no "exact"); None is by the tensors' device. docs/triton.md.

    float64 is multiplied and added in float64, the others in float32 and rounded once at the end
    (`exact` rounds once from the exact number). NaN is always the positive quiet NaN without
    payload; -0.0 comes out only where every product is -0.0 or a negative sum is too small to show.
    The process's rounding mode and flush-to-zero setting have no influence. Differentiable in
    reverse mode, to any order: gradients are products of the same variant.

    Raises UnknownNameError for an unknown variant, TypeError for devices, dtypes and layouts that
    are not taken, ValueError for shapes that do not fit, UsageError for threads below 1, a
    backend that cannot be used, or an unknown NONDET_PROBE_ISA.
    """
    find("matmul", variant)
    left: object = a
    other: object = b if isinstance(left, Tensor) else left
    if not isinstance(other, Tensor):
        raise TypeError(f"matmul takes two torch.Tensors, got {type(other).__name__}")
    result: Tensor
    if backend is not None or a.is_cuda:
        kernels = backends.kernels("matmul", variant, backend, a, b, threads=threads)
        if kernels is not None:
            return _of_any_shape(a, b, lambda left, right: kernels.matmul(left, right, variant))
    if a.dim() == 2 and b.dim() == 2:
        result = _matmul(a, b, variant, threads)
        return result
    return _of_any_shape(a, b, lambda left, right: _matmul(left, right, variant, threads))


def _of_any_shape(a: Tensor, b: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """torch.matmul's shapes by a product that takes two dimensions or more."""
    a_dims, b_dims = a.dim(), b.dim()
    if a_dims == 0 or b_dims == 0:
        raise ValueError(
            f"matmul takes tensors of one dimension or more, got shapes {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    left = a.unsqueeze(0) if a_dims == 1 else a
    right = b.unsqueeze(1) if b_dims == 1 else b
    if a_dims > 2 and b_dims <= 2 and a.numel() > 0:
        # One product of all rows instead of one for each batch: the bits are the same.
        result = product(left.reshape(-1, left.shape[-1]), right)
        result = result.reshape(*a.shape[:-1], right.shape[-1])
    else:
        result = product(left, right)
    if a_dims == 1:
        result = result.squeeze(-2)
    return result.squeeze(-1) if b_dims == 1 else result


def matmul_ref(a: Tensor, b: Tensor) -> Tensor:
    """What `matmul(a, b, variant="exact")` must give, by fractions alone. Slow: microseconds a
    product. Any layout and device; shapes as for `matmul`."""
    left = a.unsqueeze(0) if a.dim() == 1 else a
    right = b.unsqueeze(1) if b.dim() == 1 else b
    batch = _broadcast(left, right)
    count = math.prod(batch)
    rows = left.expand(*batch, *left.shape[-2:]).reshape(count, *left.shape[-2:])
    columns = right.expand(*batch, *right.shape[-2:]).reshape(count, *right.shape[-2:]).mT
    elements = []
    for of_a, of_b in zip(rows, columns, strict=True):
        lines = [numbers(column) for column in of_b]
        for row in of_a:
            row_numbers = numbers(row)
            for column in lines:
                bits = round_to_bits(exact_dot(row_numbers, column), a.dtype)
                elements.append(tensor_of_bits(bits, a.dtype))
    result = torch.stack(elements) if elements else torch.empty(0, dtype=a.dtype)
    result = result.reshape(*batch, left.shape[-2], right.shape[-1])
    if a.dim() == 1:
        result = result.squeeze(-2)
    return result.squeeze(-1) if b.dim() == 1 else result


def _broadcast(a: Tensor, b: Tensor) -> tuple[int, ...]:
    """The batch dimensions of the product."""
    found = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    return tuple(found)


def shape_of_product(a: Tensor, b: Tensor, variant: str) -> tuple[int, ...]:
    """The result's, of two tensors of two dimensions or more that fit together."""
    check_dtype("matmul", variant, a)
    if a.dtype is not b.dtype:
        raise TypeError(f"matmul takes two tensors of one dtype, got {a.dtype} and {b.dtype}")
    if a.dim() == 2 and b.dim() == 2:
        (rows, inner), (depth, columns) = a.shape, b.shape
        if inner == depth:
            return rows, columns
    elif a.shape[-1] == b.shape[-2]:
        try:
            batch = _broadcast(a, b)
        except RuntimeError:
            pass
        else:
            return (*batch, a.shape[-2], b.shape[-1])
    raise ValueError(
        f"matmul of shapes {tuple(a.shape)} and {tuple(b.shape)}: the last dimension of a and the "
        "last but one of b must be equal, those before them equal or 1"
    )


def _on_cpu(a: Tensor, b: Tensor, variant: str, threads: int | None = None) -> Tensor:
    shape = shape_of_product(a, b, variant)
    check_memory(a)
    check_memory(b)
    return via(a).matmul(a, b, shape, variant, threads)  # type: ignore[no-any-return]


def _without_data(a: Tensor, b: Tensor, variant: str, threads: int | None = None) -> Tensor:
    return a.new_empty(shape_of_product(a, b, variant))


def _keep_factors(ctx: Any, inputs: tuple[Tensor, Tensor, str, int | None], output: Tensor) -> None:
    a, b, ctx.variant, ctx.threads = inputs
    ctx.save_for_backward(a, b)


def folded(
    left: Tensor, right: Tensor, shape: torch.Size, product: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """left @ right, summed over the batch dimensions along which a factor of this shape was
    repeated. The sums become part of the product: they keep the promise of the variant."""
    batch = _broadcast(left, right)
    missing = len(batch) + 2 - len(shape)
    summed = [
        dim
        for dim, size in enumerate(batch)
        if dim < missing or (shape[dim - missing] == 1 and size != 1)
    ]
    if not summed:
        return product(left, right)
    kept = [dim for dim in range(len(batch)) if dim not in summed]
    row, column = len(batch), len(batch) + 1
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    length = inner * math.prod(batch[dim] for dim in summed)
    wide = left.expand(*batch, rows, inner).permute(*kept, row, *summed, column)
    tall = right.expand(*batch, inner, columns).permute(*kept, *summed, row, column)
    left_batch = [batch[dim] for dim in kept]
    summed_up = product(
        wide.reshape(*left_batch, rows, length), tall.reshape(*left_batch, length, columns)
    )
    return summed_up.reshape(shape)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    a, b = ctx.saved_tensors
    of_a = of_b = None

    def product(left: Tensor, right: Tensor) -> Tensor:
        result: Tensor = _matmul(left, right, ctx.variant, ctx.threads)
        return result

    if ctx.needs_input_grad[0]:
        of_a = folded(gradient, b.mT, a.shape, product)
    if ctx.needs_input_grad[1]:
        of_b = folded(a.mT, gradient, b.shape, product)
    return of_a, of_b, None, None


_matmul = define(
    "matmul",
    "(Tensor a, Tensor b, str variant, int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep_factors,
    backward=_backward,
    cuda=True,
)
