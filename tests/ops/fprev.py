"""The order in which a sum adds, found from outside by masking (the method of FPRev).

Of n summands one is a large M, one is -M and the others are 1. Ones added to a register that holds
M or -M are lost, so that the sum counts the ones that were added after the two had met: n less the
leaves of the smallest subtree that holds both. From the first leaf to all others these numbers tell
the subtrees on the way from that leaf to the root, and the same is done within each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Tree", "joined", "reveal", "tree_of"]

Tree: TypeAlias = "int | tuple[Tree, Tree]"
"""A leaf is the index of its summand; of an inner node the part with the lowest comes first."""

# Powers of two so large that adding some thousand ones to them changes nothing.
_MASKS = {torch.float32: 2.0**60, torch.float64: 2.0**100}
_ROWS = 128  # summed by one call: few enough to stay in the cache


def reveal(sums: Callable[[Tensor], Tensor], n: int, dtype: torch.dtype) -> Tree:
    """The tree by which `sums` adds n summands.

    sums: from a [k, n] tensor of `dtype` to its k sums, each of them by the same tree; for a dot
    product, say, of these rows with ones. dtype: float32 or float64, in which the sums are added.
    Raises ValueError where the counts are those of no binary tree.
    """

    if n < 1:
        raise ValueError(f"a tree has at least one leaf, got n={n}")

    ones = torch.ones(min(n, _ROWS), n, dtype=dtype)

    def leaves_together(pairs: Sequence[tuple[int, int]]) -> Iterator[int]:
        """Leaves of the smallest subtree that holds both of a pair."""
        for start in range(0, len(pairs), len(ones)):
            some = torch.tensor(pairs[start : start + len(ones)])
            x, rows = ones[: len(some)], torch.arange(len(some))
            x[rows, some[:, 0]] = _MASKS[dtype]
            x[rows, some[:, 1]] = -_MASKS[dtype]
            counts = sums(x).tolist()
            x[rows, some[:, 0]] = 1
            x[rows, some[:, 1]] = 1
            yield from (n - round(count) for count in counts)

    siblings: dict[int, list[list[int]]] = {}  # of each group's first leaf, on the way up
    groups = [list(range(n))]
    while groups:
        pairs = [(group[0], other) for group in groups for other in group[1:]]
        sizes = leaves_together(pairs)
        found = []
        for first, *others in groups:
            by_size: dict[int, list[int]] = {}
            for other in others:
                by_size.setdefault(next(sizes), []).append(other)
            siblings[first] = [by_size[size] for size in sorted(by_size)]
            reached = 1
            for size in sorted(by_size):
                reached += len(by_size[size])
                if reached != size:
                    raise ValueError(
                        f"{size} leaves meet below one node, but {reached} were found there: "
                        f"leaf {first} of {n}"
                    )
            found += siblings[first]
        groups = found

    def tree_with(first: int) -> Tree:
        tree: Tree = first
        for sibling in siblings[first]:
            tree = (tree, tree_with(sibling[0]))
        return tree

    return tree_with(0)


def _lowest(tree: Tree) -> int:
    while not isinstance(tree, int):
        tree = tree[0]
    return tree


def joined(a: Tree | None, b: Tree | None) -> Tree | None:
    """The sum of two trees; None is a neutral summand that has no leaf."""
    if a is None or b is None:
        return b if a is None else a
    return (a, b) if _lowest(a) < _lowest(b) else (b, a)


def tree_of(order: Callable[[list[Tree | None]], Tree | None], n: int) -> Tree:
    """A documented order, given as a function that joins a list of summands, for n of them."""
    tree = order(list(range(n)))
    assert tree is not None
    return tree
