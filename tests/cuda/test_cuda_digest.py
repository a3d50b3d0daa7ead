"""`digest` for GPUs, on the emulated grid and on a GPU: the host's value, whatever the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from places import GPU, Place
from torch import Tensor

from nondet_probe.bits import device, via_cuda
from nondet_probe.bits.digest import digest, digests
from nondet_probe.bits.dtypes import CODES

LAUNCHES = [(1, 0), (2, 1), (3, 3)]
Grid = Callable[[int, int], None]


def data(size: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return torch.from_numpy(values)


def on_grid(tensors: list[Tensor]) -> list[str]:
    return via_cuda.hexes(via_cuda.digests(tensors))


def on_host(tensors: list[Tensor]) -> list[str]:
    return [digest(tensor).hex for tensor in tensors]


@pytest.mark.parametrize("size", [0, 1, 3, 64, 4095, 4096, 4097, 8 * 4096, 150_001])
def test_sizes_around_blocks(size: int, grid: Grid) -> None:
    x = data(size, size)
    for seed, blocks in LAUNCHES:
        grid(seed, blocks)
        assert on_grid([x]) == on_host([x]), (seed, blocks)


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_every_dtype_and_shape(dtype: torch.dtype, grid: Grid) -> None:
    patterns = data(6000 * dtype.itemsize)
    whole = patterns > 127 if dtype is torch.bool else patterns.view(dtype)
    shapes = [(6000,), (3, 2000), (2000, 3), (1, 6000), (6000, 1, 1)]
    tensors = [whole.view(shape) for shape in shapes] + [whole[0], whole[:0], whole[:0].view(0, 3)]
    found = on_grid(tensors)
    assert found == on_host(tensors)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("offset", [1, 2, 3, 4, 8, 12])
def test_any_address(offset: int, grid: Grid) -> None:
    whole = data(20_000 + offset)
    tensors = [whole[offset:], whole[offset : offset + 4096], whole[offset : offset + 9]]
    assert on_grid(tensors) == on_host(tensors)


def test_many_tensors_of_all_sizes(grid: Grid) -> None:
    sizes = [0, 5, 4096, 70_000, 0, 0, 1, 12_288, 4097] + [40 * i for i in range(110)] + [0]
    tensors = [data(size, seed) for seed, size in enumerate(sizes)]
    expected = on_host(tensors)
    for seed, blocks in LAUNCHES:
        grid(seed, blocks)
        assert on_grid(tensors) == expected, (seed, blocks)


def test_a_view_is_what_it_shows(grid: Grid) -> None:
    x = data(4 * 900).view(torch.float32).reshape(30, 30)
    z = data(8 * 900).view(torch.complex64).reshape(30, 30)
    tensors = [x.T, x[::2, 3:], x.expand(2, 30, 30), z.conj(), z.conj().imag, z.T]
    assert on_grid(tensors) == on_host(tensors)


def test_the_order_of_blocks_counts(grid: Grid) -> None:
    blocks = data(5 * 4096).view(5, 4096)
    tensors = [blocks, blocks[[1, 0, 2, 3, 4]], blocks[[0, 1, 2, 4, 3]], blocks.flip(0)]
    assert len(set(on_grid(tensors))) == 4


def test_what_is_not_taken(grid: Grid) -> None:
    with pytest.raises(ValueError, match="tensors on one device, got"):
        via_cuda.digests([])
    with pytest.raises(TypeError, match="meta device"):
        via_cuda.digests([torch.empty(3, device="meta")])
    with pytest.raises(ValueError, match="no dtype"):
        device.library().digest([99], [0], [[1]], 0, 0, 0, 0)


def parameters() -> list[Tensor]:
    """More than one launch takes, of all sizes and several dtypes."""
    floats = [data(4 * n, n).view(torch.float32) for n in (1, 3, 1024, 1025, 70_000)]
    halves = [data(2 * n, n).view(torch.float16) for n in range(1, 2000, 17)]
    return [*floats, *halves, *(one.long() for one in floats), floats[3].view(5, -1).T, data(0)]


def test_digests_wait_once_and_not_for_each_tensor(place: Place) -> None:
    tensors = parameters()
    there = list(place.put(tensors))
    with place.without_waiting():
        words = via_cuda.digests(there)
    assert words.device == place.device
    assert via_cuda.hexes(words) == on_host(tensors)


def test_the_device_of_a_tensor_is_no_part_of_its_digest(place: Place) -> None:
    tensors = parameters()
    there = place.put(tensors)
    assert digests(there) == digests(tensors)
    assert [digest(one) for one in there[:9]] == [digest(one) for one in tensors[:9]]


def test_digests_on_a_side_stream(place: Place) -> None:
    tensors = parameters()[2:6]
    there = place.put(tensors)
    late = [torch.zeros_like(one) for one in there]
    with place.side_stream():
        place.delay()
        for one, other in zip(late, there, strict=True):
            one.copy_(other)
        words = via_cuda.digests(late)
    assert via_cuda.hexes(words) == on_host(tensors)


@pytest.mark.gpu
def test_waiting_for_each_tensor_is_found() -> None:
    """Planted: digests read back one by one."""
    words = via_cuda.digests(GPU.put(parameters()[:1]))
    with GPU.without_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        via_cuda.hexes(words)


def test_digests_of_the_host_are_those_of_digest() -> None:
    tensors = [data(size, size) for size in (0, 10, 5000)]
    assert [one.hex for one in digests(tensors)] == on_host(tensors)
    assert digests([]) == []
