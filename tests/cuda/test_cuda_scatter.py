"""The scatter core for GPUs, on the emulated grid: the bits of the CPU, whatever the grid."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from generators import FAMILIES, family, random_bits
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops import via_c, via_cuda
from nondet_probe.ops.rational import FORMATS
from nondet_probe.ops.via_cuda import library

DTYPES = list(FORMATS)
ORDERED = ["ordered", "fixed_point", "exact"]
LAUNCHES = [(1, 0), (2, 1), (3, 5)]
CHUNK = 65536  # of the format of `ordered`
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def wide(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp2(rng.integers(-8, 8, shape))
    return torch.from_numpy(values).to(dtype)


def indices(n: int, destinations: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, destinations, n))


def on_cpu(out: Tensor, index: Tensor, source: Tensor, variant: str, **how: Any) -> bytes:
    table = out.clone()
    via_c.scatter_rows(table, table.shape[0], index, source, variant, 1, **how)
    return bits(table)


def on_grid(out: Tensor, index: Tensor, source: Tensor, variant: str, **how: Any) -> bytes:
    table = out.clone()
    via_cuda.scatter_rows(table, table.shape[0], index, source, variant, None, **how)
    return bits(table)


# (destinations, columns or none, n): cells and rows; rows of teams not quite full and just over, of
# more than one strip of 1024 columns.
SHAPES = [
    (1, (), 700),
    (5, (), 1),
    (300, (), 1000),
    (9, (3,), 100),
    (30, (33,), 40),
    (2, (1100,), 3),
    (4, (2, 4), 0),
    (3, (0,), 5),
]


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for number, (destinations, columns, n) in enumerate(SHAPES):
        out, source = wide((destinations, *columns), dtype, 1), wide((n, *columns), dtype, 2)
        index = indices(n, destinations)
        expected = on_cpu(out, index, source, variant)
        for seed, blocks in LAUNCHES if number in (0, 3) else LAUNCHES[2:]:
            grid(seed, blocks)
            found = on_grid(out, index, source, variant)
            assert found == expected, (destinations, columns, seed, blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strict", [False, True])
def test_chunks_of_the_ordered_format(dtype: torch.dtype, strict: bool, grid: Grid) -> None:
    n = 2 * CHUNK + 17
    out, source, index = wide((40,), dtype, 1), wide((n,), dtype, 2), indices(n, 30)
    index[:CHUNK] = torch.where(index[:CHUNK] == 7, 8, index[:CHUNK])  # 7: from the second chunk on
    index[CHUNK:] = torch.where(index[CHUNK:] == 9, 8, index[CHUNK:])  # 9: in the first one only
    out[7] = -0.0
    grid(3, 5)
    found = on_grid(out, index, source, "ordered", strict=strict)
    assert found == on_cpu(out, index, source, "ordered", strict=strict)
    if dtype is torch.float32:
        assert found != on_cpu(out, index, source, "ordered", strict=not strict)


@pytest.mark.parametrize("variant", ORDERED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_sums_go_wrong_on(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    grid(5, 2)
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)):
            source = whole[:600]
            out = torch.full((3,), -0.0, dtype=dtype)
            out[1:] = whole[:1] if whole.numel() else 0
            index = indices(source.numel(), 2, number)
            expected = on_cpu(out, index, source, variant)
            assert on_grid(out, index, source, variant) == expected, (name, number)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_sums_of_all_exponents(dtype: torch.dtype, grid: Grid) -> None:
    """Rows of random bit patterns: most cells do not fit into the integers."""
    form = FORMATS[dtype]
    rng = np.random.default_rng(3)
    biased_top = form.infinity >> form.fraction_bits
    numbers = random_bits(60 * 9, dtype, rng, 0, biased_top * 7 // 8).reshape(60, 9)
    out, source, index = numbers[:8].contiguous(), numbers[8:].contiguous(), indices(52, 6)
    for seed, blocks in LAUNCHES:
        grid(seed, blocks)
        expected = on_cpu(out, index, source, "exact")
        assert on_grid(out, index, source, "exact") == expected
        cells = on_grid(out.view(-1), indices(468, 72), source.view(-1), "exact")
        assert cells == on_cpu(out.view(-1), indices(468, 72), source.view(-1), "exact")


def test_the_lowest_bits_break_ties(grid: Grid) -> None:
    """fp64 next to 1.0, with an addend at the end of the integers' last level, and beyond it."""
    for low in (2.0**-160, -(2.0**-160), 2.0**-300, -(2.0**-300)):
        source = torch.tensor([1.0, 2.0**-53, low], dtype=torch.float64)
        for sign in (1, -1):
            out, index = torch.zeros(1, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
            expected = on_cpu(out, index, sign * source, "exact")
            assert on_grid(out, index, sign * source, "exact") == expected, low


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["atomic", *ORDERED])
def test_specials_and_zeros(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    inf, nan = float("inf"), -float("nan")
    addends = [[], [inf], [inf, -inf], [nan, 1.0], [-0.0], [-0.0, 0.0], [-0.0, -0.0], [1.0, -1.0]]
    tiny = 2.0 ** FORMATS[dtype].lowest
    addends += [[tiny], [tiny, -tiny], [-tiny, -0.0], [inf, tiny]]
    grid(2, 3)
    for initial in (-0.0, 0.0, inf, -inf, nan, 3.0, tiny):
        out = torch.full((len(addends),), initial, dtype=dtype)
        index = torch.tensor([i for i, some in enumerate(addends) for _ in some])
        source = torch.tensor([x for some in addends for x in some], dtype=dtype)
        if variant == "fixed_point":
            source = torch.where(source == 1.0, 2.0**10, source)
        for shape in ((), (1,)):
            table = out.reshape(len(addends), *shape)
            expected = on_cpu(table, index, source, variant)
            assert on_grid(table, index, source, variant) == expected, initial


@pytest.mark.parametrize("variant", ["atomic", *ORDERED])
def test_indices_from_the_end_and_along_one_dimension(variant: str, grid: Grid) -> None:
    grid(4, 2)
    out, source = wide((7,), torch.float64, 1), wide((5,), torch.float64, 2)
    index = torch.tensor([-7, 6, -1, 0, 3])
    assert on_grid(out, index, source, variant, wrap=True) == on_cpu(
        out, index, source, variant, wrap=True
    )
    # [2, size 4, inner 3], an index of [2, 5, 3]; without two addends in one cell order is nothing
    out, source = wide((24,), torch.float64, 3), wide((30,), torch.float64, 4)
    index = indices(30, 4)
    if variant == "atomic":
        source = torch.randint(-9, 9, (30,)).double()
        out = torch.zeros(24, dtype=torch.float64)
    how: dict[str, Any] = {"strict": True, "grid": (4, 3, 15)}
    assert on_grid(out, index, source, variant, **how) == on_cpu(out, index, source, variant, **how)


@pytest.mark.parametrize("variant", ["atomic", *ORDERED])
def test_a_bad_index_is_named_and_written_nowhere(variant: str, grid: Grid) -> None:
    for seed in range(3):
        grid(seed, 4)
        for columns in ((), (3,)):
            index = indices(300, 5)
            index[[77, 120, 299]] = torch.tensor([-1, 5, 10**15])
            source = wide((300, *columns), torch.float32, 1)
            around = torch.zeros(40, *columns)
            with pytest.raises(IndexError, match="index -1 at position 77 is out of range for 5 r"):
                via_cuda.scatter_rows(around[10:15], 5, index, source, variant, None)
            assert not around[:10].any()
            assert not around[15:].any()
            with pytest.raises(IndexError, match="index 5 at position 120 is out of range"):
                via_cuda.scatter_rows(around[10:15], 5, index, source, variant, None, True)
    with pytest.raises(IndexError, match="index 0 at position 0 is out of range for 0 rows"):
        on_grid(torch.zeros(0), torch.tensor([0]), torch.ones(1), variant)


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_follows_the_order_of_arrival(dtype: torch.dtype, grid: Grid) -> None:
    out, source, index = wide((3,), dtype, 1), wide((900,), dtype, 2), indices(900, 3)

    def results(variant: str) -> int:
        seen = set()
        for seed in range(12):
            grid(seed, 3)
            seen.add(on_grid(out, index, source, variant))
        return len(seen)

    assert results("atomic") > 1
    assert [results(variant) for variant in ORDERED] == [1, 1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_is_close(dtype: torch.dtype, grid: Grid) -> None:
    for destinations, columns, n in SHAPES:
        out, source = wide((destinations, *columns), dtype, 1), wide((n, *columns), dtype, 2)
        index = indices(n, destinations)
        table = out.clone()
        via_cuda.scatter_rows(table, table.shape[0], index, source, "atomic", None)
        exact = out.double().index_add(0, index, source.double())
        of_magnitudes = out.double().abs().index_add(0, index, source.double().abs())
        u = 2.0 ** -FORMATS[dtype].precision
        k = int(index.bincount(minlength=destinations).max()) + 2
        bound = math.expm1(k * math.log1p(u)) * of_magnitudes
        assert ((table.double() - exact).abs() <= bound).all(), (destinations, columns)


@pytest.mark.parametrize("variant", ORDERED)
def test_where_no_vector_is_aligned(variant: str, grid: Grid) -> None:
    grid(1, 2)
    for dtype in DTYPES:
        out, source = wide((14,), dtype, 1)[1:], wide((101,), dtype, 2)[3:]
        index = indices(98, 13)
        assert on_grid(out, index, source, variant) == on_cpu(out, index, source, variant)


def test_what_is_not_taken(grid: Grid) -> None:
    out, index, source = torch.zeros(3), torch.tensor([0]), torch.ones(1)
    with pytest.raises(UsageError, match=r"'two_pass' has no kernel for CUDA.*fixed_point"):
        via_cuda.scatter_rows(out, 3, index, source, "two_pass", None)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.scatter_rows(out, 3, index, source, "exact", 2)
    with pytest.raises(TypeError, match="scatter takes tensors on one device, got cpu and meta"):
        via_cuda.scatter_rows(out, 3, index.to("meta"), source, "exact", None)


def test_what_waits_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu: Any = SimpleNamespace(is_cuda=True)
    for capturing in (False, True):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda now=capturing: now)
        with (
            pytest.raises(UsageError, match="scatter, in all variants, reads back from the GPU")
            if capturing
            else contextlib.nullcontext()
        ):
            library.not_captured("scatter", on_gpu)


def test_indices_are_checked_as_on_the_cpu(grid: Grid) -> None:
    index = torch.tensor([[1, -3], [2, 0]], dtype=torch.int32)
    assert torch.equal(
        via_cuda.checked_indices(index, 3, "put", wrap=True),
        via_c.checked_indices(index, 3, "put", wrap=True),
    )
    for size, wrap in ((3, False), (2, True)):
        messages = []
        for room in (via_c, via_cuda):
            with pytest.raises(IndexError) as error:
                room.checked_indices(index, size, "put", wrap=wrap)
            messages.append(str(error.value))
        assert messages[0] == messages[1]
