"""Counts, bins and quotients for GPUs, on the emulated grid: what bincount, histogram and the
gradient of embedding need beside the scatter core."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import FAMILIES, family
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops import via_c, via_cuda
from nondet_probe.ops.rational import FORMATS

DTYPES = list(FORMATS)
FLOATS = [torch.float64, torch.float32]
LAUNCHES = [(1, 0), (2, 1), (3, 3)]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def indices(n: int, bins: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, bins, n))


# 8192 bins fit into shared memory.
@pytest.mark.parametrize(("n", "bins"), [(0, 3), (1, 1), (2000, 7), (999, 8192), (999, 8193)])
def test_counts(n: int, bins: int, grid: Grid) -> None:
    index = indices(n, bins)
    for seed, blocks in LAUNCHES:
        grid(seed, blocks)
        assert torch.equal(via_cuda.count(index, bins, None), via_c.count(index, bins, 1))
    if n > 0:
        assert via_cuda.extremes(index) == via_c.extremes(index)
        index[n // 2] = bins
        assert via_cuda.first_bad_index(index, bins) == n // 2
        index[n // 2] = -1
        assert via_cuda.first_bad_index(index, bins) == n // 2
    assert via_cuda.first_bad_index(indices(n, bins), bins) == -1


@pytest.mark.parametrize("dtype", DTYPES)
def test_quotients(dtype: torch.dtype, grid: Grid) -> None:
    for name in FAMILIES:
        for values in family(name, dtype)[:3]:
            table = values[: values.numel() // 5 * 5][:250].reshape(-1, 5)
            counts = indices(table.shape[0], 9)
            expected, found = table.clone(), table.clone()
            via_c.divide_rows(expected, counts)
            via_cuda.divide_rows(found, counts)
            assert bits(found) == bits(expected), name


def test_integers_are_widened() -> None:
    x = torch.tensor([2**53 + 1, 2**53 + 3, -(2**62) - 1, 0])
    assert bits(via_cuda.widen(x)) == bits(via_c.widen(x))


def elements(dtype: torch.dtype, edges: Tensor) -> Tensor:
    """Edges, their neighbours, numbers between and outside, and what is no number."""
    up, down = (torch.nextafter(edges, torch.full_like(edges, to)) for to in (1e30, -1e30))
    x = torch.from_numpy(np.random.default_rng(1).standard_normal(400)).to(dtype) * 2
    specials = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0], dtype=dtype)
    return torch.cat([edges, up, down, x, specials])


def edges_of(dtype: torch.dtype) -> list[tuple[Tensor, bool]]:
    uneven = torch.tensor([-3.0, -1.0, -1.0, 0.0, 0.25, 0.25, 0.25, 1.0, 1.0], dtype=dtype)
    return [
        (via_c.bin_edges(-2.0, 1.7, 10, dtype), True),
        (via_c.bin_edges(0.3, 0.7, 1, dtype), True),
        (via_c.bin_edges(1.0, 1.0 + 2.0**-20, 40, dtype), True),
        (via_c.bin_edges(-1e38, 3e38, 5, dtype), True),
        (uneven, False),
        (torch.full((3,), 0.5, dtype=dtype), False),
    ]


@pytest.mark.parametrize("dtype", FLOATS)
def test_bins(dtype: torch.dtype, grid: Grid) -> None:
    for number, (edges, uniform) in enumerate(edges_of(dtype)):
        x = elements(dtype, edges)
        grid(*LAUNCHES[number % 3])
        expected = via_c.find_bins(x, edges, uniform, 1)
        assert torch.equal(via_cuda.find_bins(x, edges, uniform, None), expected), number
        hists = via_cuda.count_bins(x, edges, uniform, None), via_c.count_bins(x, edges, uniform, 1)
        for found, wanted in zip(*hists, strict=True):
            assert bits(found) == bits(wanted), number
        for hist in (hists[0][1], hists[1][1]):
            (via_cuda if hist is hists[0][1] else via_c).normalise(hist, edges)
        assert bits(hists[0][1]) == bits(hists[1][1])
        assert via_cuda.falling_edge(edges) == via_c.falling_edge(edges) == -1
    falling = torch.tensor([0.0, 1.0, 0.5, 0.2], dtype=dtype)
    assert via_cuda.falling_edge(falling) == 2


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_range_of_all_elements(dtype: torch.dtype) -> None:
    for values in ([], [-0.0], [3.0, -1.0], [float("nan"), 1.0], [float("inf"), 0.0]):
        x = torch.tensor(values, dtype=dtype)
        found, expected = via_cuda.range_of(x), via_c.range_of(x)
        assert [str(v) for v in found] == [str(v) for v in expected], values


@pytest.mark.parametrize("dtype", FLOATS)
def test_exact_bins(dtype: torch.dtype, grid: Grid) -> None:
    grid(3, 2)
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)):
            weights = whole[:200]
            index = indices(weights.numel(), 4, number)  # 3: in no bin
            found, expected = (room.bin_sums(index, weights, 3) for room in (via_cuda, via_c))
            # A NaN or an infinity decides by itself; the digits beside it are those of the rest.
            assert torch.equal(found[1], expected[1]), (name, number)
            assert torch.equal(found[0], expected[0]), (name, number)


def test_what_is_not_taken(grid: Grid) -> None:
    x, edges = torch.ones(3), torch.tensor([0.0, 1.0])
    for call in (
        lambda: via_cuda.find_bins(x, edges, True, 2),
        lambda: via_cuda.count_bins(x, edges, True, 2),
        lambda: via_cuda.count(x.long(), 2, 2),
    ):
        with pytest.raises(UsageError, match="threads is for tensors on cpu"):
            call()
    with pytest.raises(TypeError, match="histogram takes tensors on one device"):
        via_cuda.find_bins(x, edges.to("meta"), True, None)
