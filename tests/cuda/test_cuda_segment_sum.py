"""`segment_sum` for GPUs, on the emulated grid: the bits of the CPU, whatever the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import FAMILIES, family, random_bits
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops import via_c, via_cuda
from nondet_probe.ops.rational import FORMATS

DTYPES = list(FORMATS)
ORDERED = ["ordered", "exact"]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def wide(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp2(rng.integers(-8, 8, shape))
    return torch.from_numpy(values).to(dtype)


def on_cpu(data: Tensor, lengths: Tensor, variant: str) -> bytes:
    return bits(via_c.segment_sum(data, lengths, False, variant, 1))


def on_grid(data: Tensor, lengths: Tensor, variant: str) -> bytes:
    return bits(via_cuda.segment_sum(data, lengths, False, variant, None))


# Lengths and columns. Few columns of long segments are added by warps, else each by a thread;
# around lanes (64), groups of 8 of these, chunks of 4096 rows and windows of as many.
CASES: list[tuple[list[int], tuple[int, ...]]] = [
    ([0, 1, 2, 0, 31, 32, 33, 63, 64, 65, 129, 0], ()),
    ([4095, 4096, 4097, 1, 0, 12288, 1], ()),
    ([1, 20_481, 5000, 0], ()),
    ([3, 1, 0, 2, 9, 1, 1, 7, 8], ()),
    ([9, 0, 4100, 17, 65, 30], (3,)),
    ([9, 0, 4100, 17, 65, 30], (33,)),
    ([0, 0], (2,)),
    ([2, 3], (0,)),
    ([], (2,)),
]


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for number, (lengths, columns) in enumerate(CASES):
        data, sizes = wide((sum(lengths), *columns), dtype, number), torch.tensor(lengths).long()
        expected = on_cpu(data, sizes, variant)
        for seed, blocks in [(1, 0), (2, 1), (3, 5)] if number in (0, 3) else [(3, 3)]:
            grid(seed, blocks)
            assert on_grid(data, sizes, variant) == expected, (lengths, columns, seed, blocks)


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_sums_go_wrong_on(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    grid(5, 2)
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)):
            values = whole[:4200]
            for data in (values, values[:70].reshape(-1, 1).repeat(1, 33)):
                n = data.shape[0]
                sizes = torch.tensor([n // 3, 0, n - n // 3])
                if n > 4096:
                    sizes = torch.tensor([n])
                expected = on_cpu(data.contiguous(), sizes, variant)
                assert on_grid(data.contiguous(), sizes, variant) == expected, (name, number)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_sums_of_all_exponents(dtype: torch.dtype, grid: Grid) -> None:
    """Random bit patterns: hardly any column fits into a pair."""
    form = FORMATS[dtype]
    top = (form.infinity >> form.fraction_bits) * 7 // 8
    data = random_bits(4200, dtype, np.random.default_rng(3), 0, top)
    for lengths in ([4200], [100, 4100], [50] * 84, [2] * 2100):
        sizes = torch.tensor(lengths)
        grid(3, 2)
        assert on_grid(data, sizes, "exact") == on_cpu(data, sizes, "exact"), lengths[0]


def test_what_pairs_of_lanes_lose_is_noticed(grid: Grid) -> None:
    """Where lanes meet, low parts are added whose sum no number holds; all but it cancels."""
    data = torch.zeros(64, dtype=torch.float64)
    lanes = {0: 2.0**100, 4: -1.0, 2: 2.0**100, 6: 2.0**-100, 1: -(2.0**101), 5: 1.0}
    data[list(lanes)] = torch.tensor(list(lanes.values()), dtype=torch.float64)
    assert via_cuda.segment_sum(data, torch.tensor([64]), False, "exact", None).item() == 2.0**-100


@pytest.mark.parametrize("variant", ["atomic", *ORDERED])
@pytest.mark.parametrize("dtype", DTYPES)
def test_specials_and_zeros(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    inf, nan = float("inf"), -float("nan")
    segments = [[], [inf], [inf, -inf], [nan, 1.0], [-0.0], [-0.0, 0.0], [-0.0] * 70, [1.0, -1.0]]
    segments += [[-inf, 3.0], [2.0 ** FORMATS[dtype].lowest, -0.0]]
    data = torch.tensor([x for some in segments for x in some], dtype=dtype)
    sizes = torch.tensor([len(some) for some in segments])
    for columns in (1, 40):
        table = data.reshape(-1, 1).repeat(1, columns)
        assert on_grid(table, sizes, variant) == on_cpu(table, sizes, variant)


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_follows_the_order_of_arrival(dtype: torch.dtype, grid: Grid) -> None:
    data, sizes = wide((1500, 2), dtype, 5), torch.tensor([1500])
    data[750:] = -data[:750].flip(0)  # what is left is rounding errors, which 16 bits do not hide

    def results(variant: str) -> int:
        seen = set()
        for seed in range(12):
            grid(seed, 3)
            seen.add(on_grid(data, sizes, variant))
        return len(seen)

    assert results("atomic") > 1
    assert [results(variant) for variant in ORDERED] == [1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_is_close(dtype: torch.dtype, grid: Grid) -> None:
    for lengths, columns in CASES:
        if max(lengths, default=0) > 5000:
            continue
        data, sizes = wide((sum(lengths), *columns), dtype, 6), torch.tensor(lengths).long()
        found = via_cuda.segment_sum(data, sizes, False, "atomic", None).double()
        number = torch.arange(len(lengths)).repeat_interleave(sizes)
        nothing = torch.zeros(len(lengths), *columns, dtype=torch.float64)
        exact = nothing.index_add(0, number, data.double())
        of_magnitudes = nothing.index_add(0, number, data.double().abs())
        d, u = 8 + 4100 // 64, 2.0**-53 if dtype is torch.float64 else 2.0**-24
        rounding = torch.finfo(dtype).eps * exact.abs()
        assert ((found - exact).abs() <= 1.01 * d * u * of_magnitudes + rounding).all(), columns


def test_sizes_that_do_not_fit_are_named(grid: Grid) -> None:
    data = torch.ones(7, 2)
    for sizes, are_offsets in (
        ([3, -1, 5], False),
        ([3, 3], False),
        ([], False),
        ([0, 9, 7], True),
        ([0, 3, 6], True),
        ([1, 7], True),
        ([-5, 100, 7], True),
        ([0, 2**62, -(2**62), 7], True),
    ):
        messages = []
        for room, threads in ((via_c, 1), (via_cuda, None)):
            for variant in ("atomic", *ORDERED):
                with pytest.raises(UsageError) as error:
                    room.segment_sum(
                        data, torch.tensor(sizes).long(), are_offsets, variant, threads
                    )
                messages.append(str(error.value))
        assert len(set(messages)) == 1, messages


def test_what_is_not_taken(grid: Grid) -> None:
    data, sizes = torch.ones(3), torch.tensor([3])
    with pytest.raises(UsageError, match=r"'two_pass' has no kernel for CUDA.*ordered"):
        via_cuda.segment_sum(data, sizes, False, "two_pass", None)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.segment_sum(data, sizes, False, "exact", 1)
    with pytest.raises(TypeError, match="segment_sum takes tensors on one device"):
        via_cuda.segment_sum(data, sizes.to("meta"), False, "exact", None)
