"""`sum` and `mean` for GPUs, on the emulated grid: the bits of the CPU, whatever the grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from generators import FAMILIES, family
from torch import Tensor

from nondet_probe import ops
from nondet_probe.errors import UsageError
from nondet_probe.ops import via_cuda
from nondet_probe.ops.dims import checked_dims, result_shape

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ORDERED = ["fixed_order", "binned", "exact"]
LAUNCHES = [(1, 0), (2, 1), (3, 5)]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def wide(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5
    return (x * torch.exp2(torch.randint(-12, 3, shape, generator=generator))).to(dtype)


def on_grid(x: Tensor, dim: int | tuple[int, ...] | None, variant: str, mean: bool) -> Tensor:
    dims = checked_dims(dim, x.ndim)
    return via_cuda.sum_over(x, dims, result_shape(x.shape, dims, False), variant, mean, None)


# Chunks of 4096, tiles of 512 and strips of 32 columns, each not quite full and just over.
CASES = [
    ((1,), None),
    ((63,), None),
    ((4097,), None),
    ((40_001,), None),
    ((3, 1000), 1),
    ((3, 1000), 0),
    ((5000, 5), 0),
    ((4200, 33), 0),
    ((2, 70, 6), (0, 2)),
    ((2, 70, 6), 1),
]


@pytest.mark.parametrize("mean", [False, True], ids=["sum", "mean"])
@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(
    variant: str, dtype: torch.dtype, mean: bool, grid: Grid
) -> None:
    for number, (shape, dim) in enumerate(CASES):
        x = wide(shape, dtype, number)
        expected = bits((ops.mean if mean else ops.sum)(x, dim, variant=variant))
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            assert bits(on_grid(x, dim, variant, mean)) == expected, (shape, dim, seed, blocks)


@pytest.mark.parametrize("variant", ["binned", "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_sums_go_wrong_on(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)):
            values = whole[:1500]
            columns = 33 if variant == "exact" else 2  # from 32 on, exact adds columns as such
            for x in (values, values.reshape(-1, 1).repeat(1, columns)):
                expected = bits(ops.sum(x, 0, variant=variant))
                found = bits(on_grid(x, 0, variant, False))
                assert found == expected, (name, number, tuple(x.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [1, 3])
def test_where_no_vector_is_aligned(dtype: torch.dtype, offset: int, grid: Grid) -> None:
    x = wide((9000,), dtype, 4)[offset:]
    for variant in ORDERED:
        assert bits(on_grid(x, None, variant, False)) == bits(ops.sum(x, variant=variant))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_atomic_follows_the_order_of_arrival(dtype: torch.dtype, grid: Grid) -> None:
    x = wide((60_000,), dtype, 5)

    def results(variant: str) -> int:
        seen = set()
        for seed in range(20):
            grid(seed, 7)
            seen.add(bits(on_grid(x, None, variant, False)))
        return len(seen)

    assert results("atomic") > 1
    assert [results(variant) for variant in ("two_pass", *ORDERED)] == [1] * 4


def test_two_pass_depends_on_the_grid_alone(grid: Grid) -> None:
    x = wide((60_000,), torch.float32, 6)
    seen = {}
    for blocks in (1, 2, 5, 7):
        found = set()
        for seed in range(5):
            grid(seed, blocks)
            found.add(bits(on_grid(x, None, "two_pass", False)))
        assert len(found) == 1
        seen[blocks] = found.pop()
    assert len(set(seen.values())) > 1


@pytest.mark.parametrize("variant", ["atomic", "two_pass", *ORDERED])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_nothing(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for shape, dim in (((0,), None), ((3, 0), 1), ((0, 3), 1), ((), None)):
        x = torch.full(shape, -0.0, dtype=dtype)
        for mean in (False, True):
            expected = (ops.mean if mean else ops.sum)(x, dim, variant=variant)
            assert bits(on_grid(x, dim, variant, mean)) == bits(expected), (shape, mean)


@pytest.mark.parametrize("variant", ["atomic", "two_pass"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unordered_variants_are_close(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for number, (shape, dim) in enumerate(CASES):
        x = wide(shape, dtype, number)
        dims = checked_dims(dim, x.ndim)
        exact, of_magnitudes = x.double().sum(dims), x.double().abs().sum(dims)
        u = 2.0**-53 if dtype is torch.float64 else 2.0**-24
        n = x.numel() // max(exact.numel(), 1)
        rounding = torch.finfo(dtype).eps * exact.abs()
        found = on_grid(x, dim, variant, False).double()
        assert ((found - exact).abs() <= n * u * of_magnitudes + rounding).all(), shape


def test_what_is_not_taken(grid: Grid) -> None:
    x = torch.ones(3)
    with pytest.raises(UsageError, match=r"'kahan' has no kernel for CUDA.*fixed_order"):
        on_grid(x, None, "kahan", False)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.sum_all(x, "exact", False, 2)


def test_a_build_without_kernels_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from nondet_probe.bits import device

    monkeypatch.setitem(sys.modules, "nondet_probe._cuda", None)
    device._load.cache_clear()
    with pytest.raises(UsageError, match="NONDET_PROBE_CUDA=1"):
        via_cuda.sum_all(torch.ones(3), "exact", False, None)
    device._load.cache_clear()
