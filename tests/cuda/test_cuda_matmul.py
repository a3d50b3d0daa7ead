"""`matmul` for GPUs, on the emulated grid: the bits of the CPU, whatever the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import from_bits, normal, random_bits
from torch import Tensor

from nondet_probe import ops
from nondet_probe.errors import UsageError
from nondet_probe.ops import via_cuda
from nondet_probe.ops.rational import FORMATS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ORDERED = ["splitk_ordered", "fixed_split", "exact"]
LAUNCHES = [(1, 0), (2, 1), (3, 5)]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def matrix(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return normal(torch.Size(shape).numel(), dtype, seed).reshape(shape)


def on_grid(a: Tensor, b: Tensor, variant: str) -> Tensor:
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return via_cuda.matmul(a, b, (*batch, a.shape[-2], b.shape[-1]), variant, None)


# Tiles of 64 x 64, steps of 16, chains of 256, each not quite full and just over.
SIZES = [(1, 1, 1), (3, 5, 17), (63, 65, 15), (2, 70, 256), (66, 3, 257), (4, 4, 1300)]


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for m, n, k in SIZES:
        if variant == "exact":
            m, n = min(m, 6), min(n, 5)  # a warp for each element
        a, b = matrix((m, k), dtype, 1), matrix((k, n), dtype, 2)
        expected = bits(ops.matmul(a, b, variant=variant))
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            assert bits(on_grid(a, b, variant)) == expected, (m, n, k, seed, blocks)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_slices_of_more_than_one_chain(dtype: torch.dtype, grid: Grid) -> None:
    a, b = matrix((2, 4700), dtype, 3), matrix((4700, 3), dtype, 4)
    found = {}
    for variant in ("splitk_ordered", "fixed_split"):
        grid(4, 3)
        found[variant] = bits(on_grid(a, b, variant))
        assert found[variant] == bits(ops.matmul(a, b, variant=variant))
    assert found["splitk_ordered"] != found["fixed_split"]


@pytest.mark.parametrize("variant", ORDERED)
def test_any_strides_and_batches(variant: str, grid: Grid) -> None:
    x, y = matrix((2, 3, 9, 20), torch.float32, 5), matrix((2, 3, 20, 7), torch.float32, 6)
    cases = [
        (x, y),
        (x[0, 0].T.contiguous().T, y[0, 0].T.contiguous().T),
        (x[:, :, ::2, 1:], y[:, :, 1:, ::3]),
        (x[:, :1], y),
        (x[0, 0], y),
        (x.transpose(0, 1), y[:1].transpose(0, 1)),
        (x[:, 0], y[:, 2]),
        (x[0, 0][:, :0], y[0, 0][:0]),
        (x[0, 0][:0], y[0, 0]),
    ]
    for number, (a, b) in enumerate(cases):
        expected = ops.matmul(a, b, variant=variant)
        found = on_grid(a, b, variant)
        assert found.shape == expected.shape
        assert bits(found) == bits(expected), number


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_products_go_wrong_on(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    form = FORMATS[dtype]
    top = (form.infinity >> form.fraction_bits) - 1
    inf, nan = float("inf"), float("nan")
    tiny = from_bits([1, form.sign | 1, form.sign, 0], dtype)
    special = torch.tensor([inf, -inf, nan, 0.0, -0.0, 1.0], dtype=dtype)
    pairs = [
        (tiny.reshape(4, 1), tiny.reshape(1, 4)),
        (special.reshape(6, 1), special.reshape(1, 6)),
        (torch.full((1, 20), -0.0, dtype=dtype), torch.ones(20, 1, dtype=dtype)),
        (torch.tensor([[1.0, -1.0]], dtype=dtype), torch.ones(2, 1, dtype=dtype)),
    ]
    rng = np.random.default_rng(7)
    for low, high in ((0, top), (0, 2), (top - 1, top)):
        a = random_bits(3 * 520, dtype, rng, low, high).reshape(3, 520)
        pairs.append((a, random_bits(520 * 2, dtype, rng, low, high).reshape(520, 2)))
    for number, (a, b) in enumerate(pairs):
        found = bits(on_grid(a, b, variant))
        assert found == bits(ops.matmul(a, b, variant=variant)), number


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_atomic_follows_the_order_of_arrival(dtype: torch.dtype, grid: Grid) -> None:
    a, b = matrix((2, 1100), dtype, 8), matrix((1100, 2), dtype, 9)

    def results(variant: str) -> int:
        seen = set()
        for seed in range(8):
            grid(seed, 7)
            seen.add(bits(on_grid(a, b, variant)))
        return len(seen)

    assert results("splitk_atomic") > 1
    assert results("splitk_ordered") == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_is_close(dtype: torch.dtype, grid: Grid) -> None:
    for m, n, k in SIZES:
        a, b = matrix((m, k), dtype, 1), matrix((k, n), dtype, 2)
        exact, of_magnitudes = a.double() @ b.double(), a.double().abs() @ b.double().abs()
        u = 2.0**-53 if dtype is torch.float64 else 2.0**-24
        # The products that this is compared with have an error of their own in float64.
        bound = 2 * k * u * of_magnitudes + torch.finfo(dtype).eps * exact.abs()
        found = on_grid(a, b, "splitk_atomic").double()
        assert ((found - exact).abs() <= bound).all(), (m, n, k)


def test_batches_by_turns(grid: Grid) -> None:
    """More partial sums than are kept at a time: 2^22."""
    column, row = matrix((3, 64, 1), torch.float32, 1), matrix((1, 64), torch.float32, 2)
    a = column.repeat(367, 1, 1)
    for variant in ("splitk_ordered", "splitk_atomic"):
        assert bits(on_grid(a, row, variant)) == bits(a * row)


def test_what_is_not_taken(grid: Grid) -> None:
    x = torch.ones(2, 2)
    with pytest.raises(UsageError, match=r"matmul variant 'kahan' has no kernel for CUDA.*exact"):
        via_cuda.matmul(x, x, (2, 2), "kahan", None)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.matmul(x, x, (2, 2), "exact", 2)
    many = torch.ones([2] * 7 + [2, 2]).permute(6, 5, 4, 3, 2, 1, 0, 7, 8)
    with pytest.raises(UsageError, match="at most 6 batch dimensions"):
        via_cuda.matmul(many, many, tuple(many.shape), "fixed_split", None)
