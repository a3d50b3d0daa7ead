"""`cumsum` for GPUs, on the emulated grid: the bits of the CPU, whatever the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import FAMILIES, family, from_bits, normal, random_bits
from torch import Tensor

from nondet_probe import ops
from nondet_probe.errors import UsageError
from nondet_probe.ops import via_cuda
from nondet_probe.ops.rational import FORMATS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
VARIANTS = ["fixed_order", "exact"]
LAUNCHES = [(1, 0), (2, 1), (3, 5)]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def on_grid(x: Tensor, variant: str) -> bytes:
    return bits(via_cuda.cumsum(x, x.shape[-1], variant, None))


def on_cpu(x: Tensor, variant: str) -> bytes:
    return bits(ops.cumsum(x, -1, variant=variant))


# Blocks of 64 (32), chunks of 4096 (2048), each not quite full and just over.
SHAPES = [(1,), (31,), (65,), (2047,), (2049,), (4096,), (4097,), (20_000,), (5, 300), (2, 4160)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for shape in SHAPES:
        x = normal(torch.Size(shape).numel(), dtype, len(shape)).reshape(shape)
        expected = on_cpu(x, variant)
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            assert on_grid(x, variant) == expected, (shape, seed, blocks)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_sums_go_wrong_on(name: str, dtype: torch.dtype, grid: Grid) -> None:
    """Rows too wide for integers, infinities and NaNs among them."""
    for number, whole in enumerate(family(name, dtype)):
        for variant in VARIANTS:
            x = whole[:400]
            assert on_grid(x, variant) == on_cpu(x, variant), (variant, number)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_every_kind_beside_each_other(dtype: torch.dtype, grid: Grid) -> None:
    form = FORMATS[dtype]
    top = (form.infinity >> form.fraction_bits) - 1
    n = 2200
    x = torch.stack(
        [
            normal(n, dtype, 1),
            random_bits(n, dtype, np.random.default_rng(2), 0, top),
            torch.full((n,), -0.0, dtype=dtype),
            torch.zeros(n, dtype=dtype),
            from_bits([1] * n, dtype),
            torch.full((n,), float("inf"), dtype=dtype),
        ]
    )
    x[3, 7] = -1.0
    x[2, 2100] = 1.0
    x[5, :3] = -0.0
    x[5, 2000] = -float("inf")
    for variant in VARIANTS:
        expected = on_cpu(x, variant)
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            assert on_grid(x, variant) == expected, (variant, seed, blocks)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_chunks(dtype: torch.dtype, grid: Grid) -> None:
    """More totals than are added up at a time; rows that no vector begins."""
    n = 1024 * 4096 + 4097 if dtype is torch.float32 else 3 * 4096 + 1
    x = normal(n, dtype, 3)
    grid(1, 3)
    assert on_grid(x[1:], "fixed_order") == on_cpu(x[1:], "fixed_order")


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_nothing(variant: str, grid: Grid) -> None:
    for shape in ((0,), (3, 0), (0, 3)):
        assert via_cuda.cumsum(torch.empty(shape), shape[-1], variant, None).shape == shape


def test_what_is_not_taken(grid: Grid) -> None:
    x = torch.ones(3)
    with pytest.raises(UsageError, match=r"cumsum variant 'binned' has no kernel for CUDA.*exact"):
        via_cuda.cumsum(x, 3, "binned", None)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.cumsum(x, 3, "exact", 2)
