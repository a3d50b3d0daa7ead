"""`softmax`, `log_softmax` and `cross_entropy` for GPUs, on the emulated grid: the bits of the CPU,
whatever the grid."""

from __future__ import annotations

import itertools
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
# Lanes of 64, vectors, the stage of a warp (1024; 512 for float64), of a block and chunks of 4096
# (stages of 2048 for float64), each not quite full and just over.
SHAPES = [(3, 1), (2, 63), (5, 65), (3, 512), (2, 517), (2, 1025), (2, 4096), (2, 8201)]
NONE, MEAN, SUM = 0, 1, 2
Grid = Callable[[int, int], None]


def bits(x: Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.4
    return (x * torch.exp2(torch.randint(-4, 5, shape, generator=generator))).to(dtype)


def softmax_bits(via: object, log: bool, x: Tensor, dy: Tensor, y: Tensor) -> list[bytes]:
    return [
        bits(via.softmax(log, x, None)),  # type: ignore[attr-defined]
        bits(via.softmax_backward(log, dy, y, None)),  # type: ignore[attr-defined]
    ]


def loss_of(via: object, given: tuple[object, ...], keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and what is kept for the backward."""
    x = given[1]
    assert isinstance(x, Tensor)
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    statistics = torch.full((2, x.shape[0]), 7, dtype=wide)
    weights = torch.full((), 7, dtype=torch.float64)
    kept = (statistics, weights) if keep else (None, None)
    loss = via.cross_entropy(*given, *kept, None)  # type: ignore[attr-defined]
    return loss, statistics, weights


class Losses:
    """Rows with targets, and what becomes of them."""

    def __init__(self, x: Tensor, weighted: bool, smoothing: float) -> None:
        generator = torch.Generator().manual_seed(x.numel())
        rows, columns = x.shape
        self.x, self.smoothing = x, smoothing
        self.target = torch.randint(0, columns, (rows,), generator=generator)
        self.target[rows // 2] = -7  # ignored
        self.weight = numbers((columns,), x.dtype, 6).abs() if weighted else None
        self.options = (self.target, self.weight, -7)

    def forward(self, via: object, variant: str, reduction: int) -> tuple[Tensor, Tensor, Tensor]:
        given = (variant, self.x, *self.options, reduction, self.smoothing)
        return loss_of(via, given, keep=True)

    def all_bits(self, via: object, variant: str, reduction: int) -> list[bytes]:
        found = self.forward(via, variant, reduction)
        gradient = numbers(tuple(found[0].shape), self.x.dtype, 5)
        dx = via.cross_entropy_backward(  # type: ignore[attr-defined]
            gradient, self.x, *self.options, reduction, self.smoothing, *found[1:], None
        )
        return [bits(part) for part in (*found, dx)]


@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu_on_any_grid(dtype: torch.dtype, log: bool, grid: Grid) -> None:
    for shape in SHAPES:
        x, dy = (numbers(shape, dtype, seed) for seed in shape)
        y = via_c.softmax(log, x, None)
        expected = softmax_bits(via_c, log, x, dy, y)
        for seed, blocks in LAUNCHES:
            grid(seed, blocks)
            assert softmax_bits(via_cuda, log, x, dy, y) == expected, (shape, seed, blocks)


@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_rows_go_wrong_on(dtype: torch.dtype, log: bool, grid: Grid) -> None:
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)[:12]):
            values = whole[:99]
            if values.numel() < 3:
                continue
            x = torch.stack([values, values.flip(0), torch.ones_like(values)])
            y = via_c.softmax(log, x, None)
            expected = softmax_bits(via_c, log, x, x.roll(1, 1), y)
            assert softmax_bits(via_cuda, log, x, x.roll(1, 1), y) == expected, (name, number)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_no_vector_is_aligned(dtype: torch.dtype, grid: Grid) -> None:
    x, dy = (numbers((3 * 128 + 1,), dtype, seed)[1:].view(3, 128) for seed in (1, 2))
    for given in ((x, dy.clone()), (x.clone(), dy)):
        y = via_c.softmax(False, given[0], None)
        expected = softmax_bits(via_c, False, *given, y)
        assert softmax_bits(via_cuda, False, *given, y) == expected


@pytest.mark.parametrize("smoothing", [0.0, 0.125])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_and_gradients_have_the_bits_of_the_cpu(
    dtype: torch.dtype, weighted: bool, smoothing: float, grid: Grid
) -> None:
    for shape in SHAPES:
        losses = Losses(numbers(shape, dtype, sum(shape)), weighted, smoothing)
        for variant, reduction in itertools.product(ORDERED, (NONE, MEAN, SUM)):
            expected = losses.all_bits(via_c, variant, reduction)
            grid(reduction, (0, 1, 3)[reduction])
            found = losses.all_bits(via_cuda, variant, reduction)
            assert found == expected, (shape, variant, reduction)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_losses(dtype: torch.dtype, weighted: bool, grid: Grid) -> None:
    """More than one chunk of 4096."""
    losses = Losses(numbers((4099, 2), dtype, 3), weighted, 0.0)
    for variant, reduction in itertools.product(ORDERED, (MEAN, SUM)):
        expected = losses.all_bits(via_c, variant, reduction)
        grid(reduction, 3 * reduction)
        assert losses.all_bits(via_cuda, variant, reduction) == expected, (variant, reduction)


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_of_what_rows_go_wrong_on(dtype: torch.dtype, grid: Grid) -> None:
    for name in FAMILIES:
        for number, whole in enumerate(family(name, dtype)[:8]):
            values = whole[:99]
            if values.numel() < 3:
                continue
            x = torch.stack([values, values.flip(0), values.roll(1)])
            losses = Losses(x, number % 2 == 0, 0.25 if number % 3 == 0 else 0.0)
            for variant in ORDERED:
                expected = losses.all_bits(via_c, variant, MEAN)
                # A largest element of 0 may be either zero: it changes no result.
                found = losses.all_bits(via_cuda, variant, MEAN)
                assert found[0] == expected[0], (name, number, variant)
                assert found[2:] == expected[2:], (name, number, variant)


@pytest.mark.parametrize("variant", ORDERED)
def test_losses_without_what_backward_needs(variant: str, grid: Grid) -> None:
    losses = Losses(numbers((70, 7), torch.float32, 1), True, 0.125)
    for reduction in (NONE, MEAN, SUM):
        given = (variant, losses.x, *losses.options, reduction, losses.smoothing)
        expected = loss_of(via_c, given, keep=False)
        found = loss_of(via_cuda, given, keep=False)
        assert [bits(part) for part in found] == [bits(part) for part in expected]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_atomic_follows_the_order_of_arrival(dtype: torch.dtype, grid: Grid) -> None:
    losses = Losses(numbers((700, 3), dtype, 4), True, 0.0)

    def results(variant: str) -> int:
        seen = set()
        for seed in range(8):
            grid(seed, 5)
            seen.add(bits(losses.forward(via_cuda, variant, SUM)[0]))
        return len(seen)

    assert results("atomic") > 1
    assert [results(variant) for variant in ("two_pass", *ORDERED)] == [1] * 3


@pytest.mark.parametrize("variant", ["atomic", "two_pass"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unordered_variants_are_close(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    for weighted in (False, True):
        losses = Losses(numbers((300, 7), dtype, 3), weighted, 0.125)
        expected = losses.forward(via_c, "exact", MEAN)
        found = losses.forward(via_cuda, variant, MEAN)
        u = 2.0**-53 if dtype is torch.float64 else 2.0**-24
        # Losses are positive, and so are weights.
        most = (2 * 300 * u + torch.finfo(dtype).eps) * 1.01 * expected[0].double()
        assert (found[0].double() - expected[0].double()).abs() <= most
        assert (found[2] - expected[2]).abs() <= 300 * u * expected[2]


@pytest.mark.parametrize("variant", ["atomic", "two_pass", *ORDERED])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_nothing(variant: str, dtype: torch.dtype, grid: Grid) -> None:
    none = torch.empty((0,), dtype=torch.int64)
    ignored = torch.full((3,), -7)
    for x, target in (
        (torch.empty((0, 3), dtype=dtype), none),
        (torch.ones((3, 2), dtype=dtype), ignored),
        (torch.ones((3, 0), dtype=dtype), ignored),
    ):
        for reduction, weighted in itertools.product((NONE, MEAN, SUM), (False, True)):
            weight = torch.ones(x.shape[1], dtype=dtype) if weighted else None
            given = (variant, x, target, weight, -7, reduction, 0.0)
            mine, theirs = (loss_of(via, given, keep=True) for via in (via_cuda, via_c))
            assert [part.shape for part in mine] == [part.shape for part in theirs]
            # Without elements the CPU leaves what is kept, which nothing reads, as it was.
            for which in (0,) if x.numel() == 0 else (0, 1, 2):
                found, expected = bits(mine[which]), bits(theirs[which])
                assert found == expected, (tuple(x.shape), reduction, weighted, which)
    for shape in ((0, 3), (3, 0), ()):
        x = torch.ones(shape, dtype=dtype)
        assert bits(via_cuda.softmax(False, x, None)) == bits(via_c.softmax(False, x, None))


@pytest.mark.parametrize("bad", [-1, 7, -(2**63), 2**63 - 1])
def test_a_target_that_is_no_class_is_named(bad: int, grid: Grid) -> None:
    losses = Losses(numbers((70, 7), torch.float32, 1), True, 0.0)
    losses.target[[33, 60]] = bad
    said = []
    for via in (via_c, via_cuda):
        grid(4, 6)
        with pytest.raises(IndexError) as error:
            losses.forward(via, "fixed_order", MEAN)
        said.append(str(error.value))
    assert said[0] == said[1] == f"target {bad} at position 33 is not one of the 7 classes"


def test_what_is_not_taken(grid: Grid) -> None:
    x, target = torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UsageError, match="threads is for tensors on cpu"):
        via_cuda.softmax(False, x, 2)
    with pytest.raises(UsageError, match="target is on meta"):
        via_cuda.cross_entropy("exact", x, target.to("meta"), None, -7, MEAN, 0.0, None, None, None)
    with pytest.raises(UsageError, match="gradient has 5 elements"):
        via_cuda.softmax_backward(False, torch.ones(5), x, None)
