"""`layer_norm` and `rms_norm` for GPUs, on the emulated grid: the bits of the CPU, whatever the
grid."""

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
LAUNCHES = [(1, 0), (2, 1), (3, 3)]
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.4
    return (x * torch.exp2(torch.randint(-4, 3, shape, generator=generator))).to(dtype)


def statistics_of(x: Tensor, columns: int) -> Tensor:
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    return torch.full((2, x.numel() // columns), 7.0, dtype=wide)


class Case:
    """A matrix, its parameters, and what the CPU makes of them."""

    def __init__(self, x: Tensor, dy: Tensor, centred: bool, parameters: bool) -> None:
        self.x, self.dy, self.centred, self.columns = x, dy, centred, x.shape[-1]
        self.weight = numbers((self.columns,), x.dtype, 8) if parameters else None
        self.bias = numbers((self.columns,), x.dtype, 9) if parameters and centred else None
        self.kept = statistics_of(x, self.columns)
        self.forward = [bits(self._norm(via_c, self.kept)), bits(self.kept)]

    def _norm(self, via: object, kept: Tensor) -> Tensor:
        return via.layer_norm(  # type: ignore[attr-defined,no-any-return]
            self.centred, self.x, self.columns, self.weight, self.bias, 1e-5, kept, None
        )

    def on_grid(self) -> list[bytes]:
        kept = statistics_of(self.x, self.columns)
        return [bits(self._norm(via_cuda, kept)), bits(kept)]

    def gradients(self, via: object, variant: str) -> tuple[Tensor, Tensor, Tensor]:
        return via.layer_norm_backward(  # type: ignore[attr-defined,no-any-return]
            self.centred, variant, self.dy, self.x, self.columns, self.weight, self.kept, True, None
        )


def random_case(rows: int, columns: int, dtype: torch.dtype, centred: bool) -> Case:
    x, dy = (numbers((rows, columns), dtype, seed) for seed in (rows, columns + 1000))
    return Case(x, dy, centred, parameters=rows % 2 == 0)


# Lanes of 64, vectors, the stage of a warp (1024; 512 for float64), of a block and chunks of 4096
# (stages of 2048 for float64), each not quite full and just over; chunks of 32 rows.
SHAPES = [
    (1, 1),
    (2, 63),
    (70, 65),
    (3, 512),
    (2, 516),
    (33, 1024),
    (2, 1025),
    (3, 4096),
    (2, 8201),
]


@pytest.mark.parametrize("centred", [True, False], ids=["layer_norm", "rms_norm"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(dtype: torch.dtype, centred: bool, grid: Grid) -> None:
    for rows, columns in SHAPES:
        case = random_case(rows, columns, dtype, centred)
        expected = {v: [bits(g) for g in case.gradients(via_c, v)] for v in ORDERED}
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            assert case.on_grid() == case.forward, (rows, columns, seed, blocks)
            for variant in ORDERED:
                found = [bits(g) for g in case.gradients(via_cuda, variant)]
                assert found == expected[variant], (rows, columns, seed, blocks, variant)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_chunks_of_rows(dtype: torch.dtype, grid: Grid) -> None:
    """More than are folded at once, in blocks of their own and column by column."""
    case = random_case(32 * 65 + 5, 2, dtype, True)
    expected = {v: [bits(g) for g in case.gradients(via_c, v)] for v in ORDERED}
    for seed, blocks in ((1, 2), (2, 70)):
        grid(seed, blocks)
        for variant in ORDERED:
            assert [bits(g) for g in case.gradients(via_cuda, variant)] == expected[variant]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_rows_go_wrong_on(dtype: torch.dtype, grid: Grid) -> None:
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)[:12]):
            values = whole[:99]
            if values.numel() < 3:
                continue
            x = torch.stack([values, values.flip(0), torch.ones_like(values)])
            case = Case(x, x.roll(1, 1), number % 2 == 0, parameters=False)
            grid(number, 1 + number % 2 * 5)
            assert case.on_grid() == case.forward, (name, number)
            for variant in ORDERED:
                expected = [bits(g) for g in case.gradients(via_c, variant)]
                found = [bits(g) for g in case.gradients(via_cuda, variant)]
                assert found == expected, (name, number, variant)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_no_vector_is_aligned(dtype: torch.dtype, grid: Grid) -> None:
    x, dy = (numbers((3 * 128 + 1,), dtype, seed)[1:].view(3, 128) for seed in (1, 2))
    for given in ((x, dy.clone()), (x.clone(), dy)):
        case = Case(*given, True, parameters=True)
        assert case.on_grid() == case.forward
        expected = [bits(g) for g in case.gradients(via_c, "fixed_order")]
        assert [bits(g) for g in case.gradients(via_cuda, "fixed_order")] == expected


@pytest.mark.parametrize("blocks", [2, 30], ids=["in the rows' kernel", "column by column"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_atomic_follows_the_order_of_arrival(dtype: torch.dtype, blocks: int, grid: Grid) -> None:
    case = random_case(100, 33, dtype, True)

    def results(variant: str, which: int) -> int:
        seen = set()
        for seed in range(12):
            grid(seed, blocks)
            seen.add(bits(case.gradients(via_cuda, variant)[which]))
        return len(seen)

    assert results("atomic", 1) > 1
    assert results("atomic", 2) > 1
    assert results("atomic", 0) == 1
    assert [results(variant, 1) for variant in ("two_pass", *ORDERED)] == [1] * 3


def test_two_pass_depends_on_the_grid_alone(grid: Grid) -> None:
    case = random_case(150, 33, torch.float32, True)
    seen = {}
    for blocks in (1, 2, 5, 7):
        found = set()
        for seed in range(4):
            grid(seed, blocks)
            found.add(bits(case.gradients(via_cuda, "two_pass")[1]))
        assert len(found) == 1
        seen[blocks] = found.pop()
    assert len(set(seen.values())) > 1


@pytest.mark.parametrize("variant", ["atomic", "two_pass"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unordered_variants_are_close(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    u = 2.0**-53 if dtype is torch.float64 else 2.0**-24
    for rows, columns in ((70, 65), (34, 1025)):
        case = random_case(rows, columns, dtype, True)
        mean, scale = (case.kept[i].unsqueeze(1) for i in (0, 1))
        terms = case.dy.to(mean.dtype) * ((case.x.to(mean.dtype) - mean) * scale)
        grid(3, 4)
        _, dgamma, dbeta = case.gradients(via_cuda, variant)
        for found, of in ((dgamma, terms), (dbeta, case.dy.to(mean.dtype))):
            exact, of_magnitudes = of.double().sum(0), of.double().abs().sum(0)
            rounding = torch.finfo(dtype).eps * exact.abs()
            assert ((found.double() - exact).abs() <= 2 * rows * u * of_magnitudes + rounding).all()


@pytest.mark.parametrize("variant", ["atomic", "two_pass", *ORDERED])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_nothing(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for shape, columns in (((0, 3), 3), ((3, 0), 0)):
        x = torch.empty(shape, dtype=dtype)
        kept = torch.empty((2, 0), dtype=torch.float64 if dtype is torch.float64 else torch.float32)
        for centred in (True, False):
            given = (centred, variant, x, x, columns, None, kept, True, None)
            for mine, theirs in zip(
                via_cuda.layer_norm_backward(*given), via_c.layer_norm_backward(*given), strict=True
            ):
                assert mine.shape == theirs.shape
                assert bits(mine) == bits(theirs)
            assert (
                via_cuda.layer_norm(centred, x, columns, None, None, 1e-5, None, None).shape
                == shape
            )


def test_sums_of_negative_zeros(grid: Grid) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    case = Case(x, torch.full_like(x, -0.0), True, parameters=False)
    for variant in ("atomic", "two_pass", *ORDERED):
        expected = [bits(g) for g in case.gradients(via_c, variant)]
        assert [bits(g) for g in case.gradients(via_cuda, variant)] == expected


def test_without_parameters_there_are_no_sums(grid: Grid) -> None:
    case = random_case(3, 5, torch.float32, True)
    given = (True, "fixed_order", case.dy, case.x, 5, None, case.kept, False, None)
    dx, dgamma, dbeta = via_cuda.layer_norm_backward(*given)
    assert bits(dx) == bits(via_c.layer_norm_backward(*given)[0])
    assert dgamma.numel() == dbeta.numel() == 0


def test_what_is_not_taken(grid: Grid) -> None:
    x = torch.ones(2, 3)
    with pytest.raises(UsageError, match="no rows of 4 elements"):
        via_cuda.layer_norm(True, x, 4, None, None, 1e-5, None, None)
    with pytest.raises(UsageError, match="weight has 2 elements"):
        via_cuda.layer_norm(True, x, 3, torch.ones(2), None, 1e-5, None, None)
    with pytest.raises(UsageError, match="weight is on meta"):
        via_cuda.layer_norm(True, x, 3, torch.ones(3, device="meta"), None, 1e-5, None, None)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.layer_norm(True, x, 3, None, None, 1e-5, None, 2)
