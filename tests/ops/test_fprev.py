"""Trees of `sum` seen from outside, for all n up to 512; and that the checker sees a wrong one."""

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from fprev import Tree, joined, reveal, tree_of
from torch import Tensor

from nondet_probe.ops import sum as sum_all

Summand: TypeAlias = "Tree | None"
LANES = 64


def folded(lanes: list[Summand]) -> Summand:
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [joined(a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


def rows_of_lanes(summands: list[Summand]) -> list[list[Summand]]:
    padded = summands + [None] * (-len(summands) % LANES)
    return [padded[start : start + LANES] for start in range(0, len(padded), LANES)]


def fixed_order(summands: list[Summand]) -> Summand:
    """docs/ops.md, of at most one chunk."""
    lanes: list[Summand] = [None] * LANES
    for row in rows_of_lanes(summands):
        lanes = [joined(lane, summand) for lane, summand in zip(lanes, row, strict=True)]
    return folded(lanes)


def pairwise(summands: list[Summand]) -> Summand:
    rows = rows_of_lanes(summands)
    while len(rows) > 1:
        odd = rows[len(rows) // 2 * 2 :]
        pairs = zip(rows[0::2], rows[1::2], strict=False)
        rows = [[joined(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs] + odd
    return folded(rows[0])


ORDERS = {"fixed_order": fixed_order, "pairwise": pairwise}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", ORDERS)
def test_the_tree_is_the_documented_one_for_every_n(variant: str, dtype: torch.dtype) -> None:
    def sums(x: Tensor) -> Tensor:
        return sum_all(x, 1, variant=variant, threads=1)

    step = 1 if dtype is torch.float32 and variant == "fixed_order" else 7
    for n in [*range(1, 512, step), 512]:
        assert reveal(sums, n, dtype) == tree_of(ORDERS[variant], n), n


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "all at once": lambda x: torch.stack([sum_all(row, variant="fixed_order") for row in x]),
    "columns": lambda x: sum_all(x.t().contiguous(), 0, variant="fixed_order"),
    "strided": lambda x: sum_all(x.repeat_interleave(2, 1)[:, ::2], 1, variant="fixed_order"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_tree_is_the_same_in_every_form(form: str) -> None:
    for n in (2, 63, 65, 128, 300, 511):
        assert reveal(FORMS[form], n, torch.float32) == tree_of(fixed_order, n), n


def in_order(x: Tensor) -> Tensor:
    total = x[:, 0]
    for column in x.t()[1:]:
        total = total + column
    return total


def neighbours(x: Tensor) -> Tensor:
    while x.shape[1] > 1:
        odd = x[:, x.shape[1] // 2 * 2 :]
        x = torch.cat([x[:, : x.shape[1] // 2 * 2 : 2] + x[:, 1::2], odd], 1)
    return x[:, 0]


def test_trees_known_from_elsewhere_are_found() -> None:
    assert reveal(in_order, 4, torch.float64) == (((0, 1), 2), 3)
    assert reveal(neighbours, 5, torch.float32) == (((0, 1), (2, 3)), 4)
    assert reveal(lambda x: in_order(x.flip(1)), 4, torch.float32) == (0, (1, (2, 3)))


@pytest.mark.parametrize("wrong", [in_order, neighbours])
def test_a_wrong_tree_is_seen(wrong: Callable[[Tensor], Tensor]) -> None:
    for n in (66, 130):
        assert reveal(wrong, n, torch.float32) != tree_of(fixed_order, n)


def test_two_summands_exchanged_are_seen() -> None:
    def exchanged(x: Tensor) -> Tensor:
        order = torch.arange(x.shape[1])
        order[3], order[70] = 70, 3
        return sum_all(x[:, order], 1, variant="fixed_order")

    assert reveal(exchanged, 130, torch.float32) != tree_of(fixed_order, 130)


def test_what_is_no_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves meet below one node"):
        reveal(lambda x: sum_all(x, 1), 20, torch.float32)  # exact: no ones are lost
    with pytest.raises(ValueError, match="at least one leaf"):
        reveal(in_order, 0, torch.float32)
