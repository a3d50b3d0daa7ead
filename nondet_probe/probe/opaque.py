"""Find computations that pass by a dispatch mode: kernels called inside of autograd Functions."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from nondet_probe.env.torch_private import last_sequence_number

__all__ = ["Functions"]

_COMPILED = "CompiledFunctionBackward"
_KEPT = 1 << 16


class Functions:
    """Tells of each autograd Function, once a call, when none of its forward ops was seen.

    A Function makes its node, then runs its forward without gradients. So an op seen while the
    newest node is that of the Function belongs to its forward (or comes right after it). Only what
    the forward shows is known: a Function whose backward alone calls a foreign kernel is missed.
    """

    def __init__(self) -> None:
        self._busy: dict[tuple[int, int], None] = {}
        self._told: dict[tuple[int, int], None] = {}

    def reasons(self, operands: Iterable[Tensor]) -> list[str]:
        """Call with the operands of every op that computes, before it runs."""
        thread = threading.get_ident()
        found: list[str] = []
        for tensor in operands:
            # Asking a view for its node may make a new one, which would change the order in which
            # gradients are added.
            if not tensor.requires_grad or tensor._is_view():
                continue
            node: Any = tensor.grad_fn
            if isinstance(node, BackwardCFunction):
                reason = self._reason(thread, node)
                if reason is not None:
                    found.append(reason)
        number = last_sequence_number()
        if number is not None:
            self._busy[thread, number] = None
            _shorten(self._busy)
        return found

    def _reason(self, thread: int, node: Any) -> str | None:
        key = thread, node._sequence_nr()
        if key in self._told:
            return None
        self._told[key] = None
        _shorten(self._told)
        name = node.name()
        if name == _COMPILED:
            return "a region of torch.compile: ops that its compiler fused do not reach the probe"
        if key in self._busy:
            return None
        function = name.removesuffix("Backward")
        return f"autograd Function {function}: no op of its forward reached the probe"


def _shorten(kept: dict[tuple[int, int], None]) -> None:
    if len(kept) > _KEPT:
        del kept[next(iter(kept))]
