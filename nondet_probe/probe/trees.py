"""Copies of a batch, so exact that a kernel cannot tell them from the original.

A step may write into its batch, so every copy of a run needs a batch of its own. A plain `clone()`
is not enough: it may change strides, alignment and sharing of memory, with them the path inside a
kernel, and with that the bits of the result.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from nondet_probe.probe.operands import Copies, unreadable

__all__ = ["copy_tree"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def copy_tree(tree: Any, times: int) -> list[Any]:
    """`times` copies of `tree`, with every tensor and NumPy array in it copied.

    Tensors keep strides, alignment, shared memory (within one copy) and requires_grad, and become
    leaves; subclasses, layouts other than strided, and lazily conjugated or negated tensors get
    `clone()`. Looks into dicts, lists, tuples, named tuples and their subclasses. Any other object
    is passed as it is: a step that writes into one does so for all.
    """
    found = list(_tensors(tree))
    plain = [
        tensor
        for tensor in found
        if type(tensor) in _PLAIN
        and unreadable(tensor) is None
        and not (tensor.is_conj() or tensor.is_neg())
    ]
    maker = Copies(plain)

    def one() -> Any:
        made = maker.fresh()
        for tensor in found:
            if id(tensor) not in made:
                made[id(tensor)] = tensor.detach().clone()
            made[id(tensor)].requires_grad_(tensor.requires_grad)
        return _mapped(tree, lambda tensor: made[id(tensor)])

    return [one() for _ in range(times)]


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)


def _mapped(tree: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, np.ndarray):
        return tree.copy(order="K")
    if isinstance(tree, dict | list):
        # A shallow copy first, so that a subclass stays what it is (a defaultdict, say).
        made = copy.copy(tree)
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            made[key] = _mapped(tree[key], change)
        return made
    if isinstance(tree, tuple):
        values = [_mapped(value, change) for value in tree]
        return tree._make(values) if hasattr(tree, "_make") else type(tree)(values)
    return tree
