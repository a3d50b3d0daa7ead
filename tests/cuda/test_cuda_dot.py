"""`dot` and `norm` for GPUs, on the emulated grid: the bits of the CPU, whatever the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import FAMILIES, family, normal, random_bits
from torch import Tensor

from nondet_probe import ops
from nondet_probe.errors import UsageError
from nondet_probe.ops import via_cuda
from nondet_probe.ops.rational import FORMATS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
VARIANTS = ["fixed_order", "binned", "exact"]
LAUNCHES = [(1, 0), (2, 1), (3, 5)]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a: Tensor, b: Tensor, variant: str) -> tuple[list[bytes], list[bytes]]:
    """What the grid says, and what it must: the product and, of each factor, the norm."""
    found = [
        via_cuda.dot(a, b, variant, None),
        via_cuda.norm(a, variant, None),
        via_cuda.norm(b, variant, None),
    ]
    expected = [
        ops.dot(a, b, variant=variant),
        ops.norm(a, variant=variant),
        ops.norm(b, variant=variant),
    ]
    return [bits(x) for x in found], [bits(x) for x in expected]


# Tiles of 512, chunks and blocks of 4096, each not quite full and just over.
@pytest.mark.parametrize("n", [1, 65, 511, 4095, 4097, 20_003])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(
    variant: str, dtype: torch.dtype, n: int, grid: Grid
) -> None:
    a, b = normal(n, dtype, 1), normal(n, dtype, 2)
    for seed, blocks in LAUNCHES:
        grid(seed, blocks)
        found, expected = same(a, b, variant)
        assert found == expected, (seed, blocks)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_sums_go_wrong_on(name: str, dtype: torch.dtype, grid: Grid) -> None:
    for number, whole in enumerate(family(name, dtype)):
        x, other = whole[:600], whole[:600].flip(0)
        for variant in VARIANTS:
            found = via_cuda.dot(x, other, variant, None)
            assert bits(found) == bits(ops.dot(x, other, variant=variant)), (variant, number)
            found = via_cuda.norm(x, variant, None)
            assert bits(found) == bits(ops.norm(x, variant=variant)), (variant, number)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_of_any_exponent(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    """Products that overflow, underflow and lose bits below the smallest number."""
    rng = np.random.default_rng(7)
    form = FORMATS[dtype]
    top = (form.infinity >> form.fraction_bits) - 1
    for low, high in ((0, top), (0, 2), (top - 1, top), (top // 2 - 30, top // 2 + 30)):
        a = random_bits(1500, dtype, rng, max(low, 0), high)
        b = random_bits(1500, dtype, rng, max(low, 0), high)
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            found, expected = same(a, b, variant)
            assert found == expected, (low, high, seed, blocks)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_infinities_and_nans(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    def of(*values: float) -> Tensor:
        return torch.tensor(values, dtype=dtype)

    inf, nan = float("inf"), float("nan")
    smallest = torch.tensor([1], dtype=FORMATS[dtype].integers).view(dtype)
    pairs = [
        (of(), of()),
        (of(-0.0), of(0.0)),
        (of(-0.0, 3.0), of(5.0, -0.0)),
        (of(-0.0, 0.0), of(5.0, 5.0)),
        (smallest, -smallest),
        (of(1.0, -1.0), of(1.0, 1.0)),
        (of(inf, 1.0), of(2.0, 1.0)),
        (of(inf, 1.0), of(0.0, 1.0)),
        (of(inf, 1.0), of(1.0, -inf)),
        (of(nan, inf), of(1.0, 1.0)),
        (of(-inf, -inf), of(3.0, 3.0)),
    ]
    for number, (a, b) in enumerate(pairs):
        found, expected = same(a, b, variant)
        assert found == expected, number


@pytest.mark.parametrize("variant", ["binned", "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_order_does_not_matter(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    a, b = normal(5000, dtype, 3), normal(5000, dtype, 4)
    order = torch.from_numpy(np.random.default_rng(5).permutation(5000))
    assert bits(via_cuda.dot(a[order], b[order], variant, None)) == bits(
        via_cuda.dot(a, b, variant, None)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_no_vector_is_aligned(dtype: torch.dtype, grid: Grid) -> None:
    a, b = normal(9000, dtype, 5), normal(9000, dtype, 6)
    for variant in VARIANTS:
        for x, y in ((a[1:], b[1:]), (a[3:], b[:-3])):
            found, expected = same(x, y, variant)
            assert found == expected, variant


def test_many_chunks(grid: Grid) -> None:
    """More partial sums than one block folds."""
    n = 2048 * 4096 + 4097
    a, b = torch.zeros(n, dtype=torch.bfloat16), torch.ones(n, dtype=torch.bfloat16)
    a[::4099] = normal(len(a[::4099]), torch.bfloat16, 8)
    grid(1, 2)
    assert bits(via_cuda.dot(a, b, "fixed_order", None)) == bits(
        ops.dot(a, b, variant="fixed_order")
    )


def test_what_is_not_taken(grid: Grid) -> None:
    x = torch.ones(3)
    with pytest.raises(UsageError, match=r"dot variant 'atomic' has no kernel for CUDA.*binned"):
        via_cuda.dot(x, x, "atomic", None)
    with pytest.raises(UsageError, match="norm variant 'kahan'"):
        via_cuda.norm(x, "kahan", None)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.norm(x, "exact", 2)
