"""`var` and `var_mean` for GPUs, on the emulated grid: the bits of the CPU, whatever the grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from generators import FAMILIES, family
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops import via_c, via_cuda

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ORDERED = ["fixed_order", "exact"]
LAUNCHES = [(1, 0), (2, 1), (3, 5)]
# Lanes of 64, stages of 512 to 4096, tiles of 512, visits of 16384, each not quite full and just
# over: a row a block, and rows shared by blocks.
SHAPES = [(3, 1), (2, 63), (5, 65), (3, 516), (2, 1025), (1, 4097), (3, 8201), (1, 16_400)]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) + 2
    return (x * torch.exp2(torch.randint(-12, 1, shape, generator=generator))).to(dtype)


def both(via: object, x: Tensor, variant: str, correction: int = 1) -> list[bytes]:
    rows = x.shape[0]
    found = via.var_mean(x, rows, [rows], correction, variant, None)  # type: ignore[attr-defined]
    return [bits(part) for part in found]


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(dtype: torch.dtype, variant: str, grid: Grid) -> None:
    for shape in SHAPES:
        x = numbers(shape, dtype, sum(shape))
        expected = both(via_c, x, variant)
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            assert both(via_cuda, x, variant) == expected, (shape, seed, blocks)


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_variances_go_wrong_on(dtype: torch.dtype, variant: str, grid: Grid) -> None:
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)[:15]):
            x = whole[:700]
            if x.numel() == 0:
                continue
            x = torch.stack([x, x.flip(0)])
            grid(number, 1 + number % 2)
            for correction in (1, 0, x.shape[1]) if number == 0 else (1,):
                expected = both(via_c, x, variant, correction)
                assert both(via_cuda, x, variant, correction) == expected, (name, number)


def test_squares_at_the_ends_of_doubles(grid: Grid) -> None:
    """Where a square is not the sum of two doubles it goes into digits of its own."""
    for exponents in ((-1074, -1060), (-540, -500), (-484, -476), (490, 505), (1000, 1023)):
        generator = torch.Generator().manual_seed(exponents[0])
        fractions = torch.rand((3, 70), generator=generator, dtype=torch.float64) + 1
        powers = torch.randint(*exponents, (3, 70), generator=generator)
        x = torch.ldexp(torch.ldexp(fractions, powers // 2), powers - powers // 2)
        x[1, ::2] *= -1
        x[2, 0] = 1.0
        assert both(via_cuda, x, "exact") == both(via_c, x, "exact"), exponents


def test_what_is_below_the_smallest_double_decides(grid: Grid) -> None:
    """The square is half way between two doubles, but for 2^-1076."""
    a = (1 + 2.0**-20 + 2.0**-34) * 2.0**-504
    x = torch.tensor([[a, -a]], dtype=torch.float64)
    assert both(via_cuda, x, "exact") == both(via_c, x, "exact")


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_rows_than_are_kept_at_a_time(dtype: torch.dtype, grid: Grid) -> None:
    x = numbers((4099, 1), dtype, 3)
    x[4097:] = -0.0
    for correction in (0, 1):
        expected = both(via_c, x, "exact", correction)
        grid(1, 2)
        assert both(via_cuda, x, "exact", correction) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_no_vector_is_aligned(dtype: torch.dtype, grid: Grid) -> None:
    x = numbers((2 * 4160 + 1,), dtype, 4)[1:].view(2, 4160)
    for variant in ORDERED:
        assert both(via_cuda, x, variant) == both(via_c, x, variant)


def test_two_pass_depends_on_the_grid_alone(grid: Grid) -> None:
    x = numbers((1, 40_000), torch.float32, 6)
    seen = {}
    for blocks in (1, 2, 5, 7):
        found = set()
        for seed in range(3):
            grid(seed, blocks)
            found.add(tuple(both(via_cuda, x, "two_pass")))
        assert len(found) == 1
        seen[blocks] = found.pop()
    assert len(set(seen.values())) > 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_pass_is_close(dtype: torch.dtype, grid: Grid) -> None:
    for shape in SHAPES:
        x = numbers(shape, dtype, sum(shape))
        if shape[1] == 1:
            continue
        grid(2, 5)
        u = 2.0**-53 if dtype is torch.float64 else 2.0**-24
        var, mean = via_cuda.var_mean(x, shape[0], [shape[0]], 1, "two_pass", None)
        exact, exact_mean = via_c.var_mean(x.double(), shape[0], [shape[0]], 1, "exact", None)
        # All are positive: sum|x|/n is the mean. docs/ops/var.md, with d below n.
        error = 2 * shape[1] * u * exact_mean
        n = shape[1]
        most = 2 * n * u * exact + n / (n - 1) * error**2 * 2
        last = torch.finfo(dtype).eps
        assert ((mean.double() - exact_mean).abs() <= error + last * exact_mean).all(), shape
        assert ((var.double() - exact).abs() <= most + last * exact).all(), shape


@pytest.mark.parametrize("variant", ["two_pass", *ORDERED])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_nothing(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for shape in ((0, 3), (3, 0)):
        x = torch.empty(shape, dtype=dtype)
        assert both(via_cuda, x, variant) == both(via_c, x, variant)


def test_threads_are_not_taken(grid: Grid) -> None:
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.var_mean(torch.ones(1, 3), 1, [1], 1, "exact", 2)
