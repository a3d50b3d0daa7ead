"""The public ops by the kernels for GPUs: the bits of the CPU, in all dtypes, sizes and layouts, on
numbers that are hard; and what the weaker variants promise. On a GPU this is the mark
`cross_device`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from generators import FAMILIES, family
from places import CELLS, GPU, WAITING, Cell, Place, differences
from torch import Tensor

from nondet_probe import ops
from nondet_probe.bits import digest
from nondet_probe.ops.registry import Guarantee

Inputs = tuple[Tensor, ...]

ORDERED = [cell for cell in CELLS if cell.guarantee >= Guarantee.LAUNCH_INVARIANT]
REPEATABLE = [cell for cell in CELLS if cell.guarantee is Guarantee.RUN_TO_RUN]
FREE = [
    cell
    for cell in CELLS
    if cell.guarantee is Guarantee.NONE and cell.dtype in (torch.float64, torch.float32)
]
FAR = {"sum dim=0": 1 << 24, "mean dim=0": 1 << 24, "cross_entropy": 1 << 26}
"""Elements in which there are parts enough, of 4096 rows each: too many for the emulated grid."""
WIDE = [cell for cell in ORDERED if cell.dtype is torch.float32]


def outcome(call: Callable[[], Inputs]) -> Inputs | str:
    """The result, or the error of a user's making."""
    try:
        return call()
    except (ValueError, IndexError) as error:
        return f"{type(error).__name__}: {error}"


def check(cell: Cell, inputs: Inputs, place: Place) -> None:
    """The kernels for GPUs have the bits of the CPU's, or raise the same error."""
    expected = outcome(lambda: cell.call(inputs))
    given = place.put(inputs)
    found = outcome(lambda: place.result(cell, given))
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
        return
    assert all(one.device == place.device for one in found)
    assert differences(found, expected) == [0] * len(expected)


@pytest.mark.parametrize("cell", ORDERED, ids=str)
def test_the_bits_of_the_cpu(cell: Cell, place: Place) -> None:
    for n in place.sizes:
        if n <= cell.case.most.get(cell.variant, n):
            check(cell, cell.inputs(n), place)


@pytest.mark.parametrize("cell", ORDERED, ids=str)
def test_the_bits_of_the_cpu_of_hard_numbers(cell: Cell, place: Place) -> None:
    """Every family of vectors on which sums go wrong, as all floating inputs."""
    inputs = cell.inputs(place.sizes[0] if cell.case.most else place.sizes[1])
    for name in FAMILIES if place.device.type == "cuda" else ("infinities_and_nans", "subnormals"):
        values = hard_numbers(name, cell.dtype)
        hard = tuple(
            cycled(values, one, turn) if one.dtype is cell.dtype else one
            for turn, one in enumerate(inputs)
        )
        check(cell, hard, place)


@functools.cache
def hard_numbers(name: str, dtype: torch.dtype) -> Tensor:
    return torch.cat([one for one in family(name, dtype) if one.numel()])


def cycled(values: Tensor, like: Tensor, turn: int) -> Tensor:
    """As many of these numbers as a tensor has, in its shape; which come first goes by turn."""
    places = (torch.arange(like.numel()) + 7 * turn) % values.numel()
    return values[places].view(like.shape)


@pytest.mark.parametrize("cell", WIDE, ids=str)
def test_the_bits_of_the_cpu_of_views(cell: Cell, place: Place) -> None:
    """Every input is every other element of twice as many."""
    inputs = cell.inputs(place.sizes[0] if cell.case.most else place.sizes[1])
    check(cell, tuple(torch.stack([one, one], -1)[..., 0] for one in inputs), place)


@pytest.mark.parametrize("cell", REPEATABLE, ids=str)
def test_a_repeatable_variant_repeats_itself(cell: Cell, place: Place) -> None:
    given = place.put(cell.inputs(place.sizes[-1]))
    first = place.result(cell, given)
    for turn in range(1, 6):
        place.seed(turn)
        assert differences(place.result(cell, given), first) == [0] * len(first)


@pytest.mark.parametrize("cell", [cell for cell in FREE if cell.case.name not in FAR], ids=str)
def test_atomic_follows_the_order_of_arrival(cell: Cell, place: Place) -> None:
    assert arrivals_are_seen(cell, place, place.large)


@pytest.mark.gpu
@pytest.mark.parametrize("cell", [cell for cell in FREE if cell.case.name in FAR], ids=str)
def test_atomic_follows_the_order_of_arrival_in_long_columns(cell: Cell) -> None:
    assert arrivals_are_seen(cell, GPU, FAR[cell.case.name])


def arrivals_are_seen(cell: Cell, place: Place, n: int) -> bool:
    """Whether one of 100 results has other bits; numbers of many magnitudes show it sooner."""
    plain = cell.inputs(n)
    inputs = tuple(one * (one * 4).exp() if one.is_floating_point() else one for one in plain)
    given = place.put(inputs)
    seen = set()
    for turn in range(100):
        place.seed(turn)
        seen.add(" ".join(str(digest(one.cpu())) for one in place.result(cell, given)))
        if len(seen) > 1:
            return True
    return False


@pytest.mark.parametrize("cell", [cell for cell in ORDERED if cell.case.op not in WAITING], ids=str)
def test_nothing_is_waited_for(cell: Cell, place: Place) -> None:
    given = place.put(cell.inputs(place.sizes[0]))
    place.result(cell, given)  # loads the kernels
    with place.without_waiting():
        place.result(cell, given)


def test_another_device_is_refused() -> None:
    with pytest.raises(TypeError, match="sum takes tensors on cpu or cuda, got one on meta"):
        ops.sum(torch.ones(3, device="meta"))
