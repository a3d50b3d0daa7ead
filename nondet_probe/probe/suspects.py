"""How often to execute a call: most of them twice, those under suspicion more often.

A class is an overload with the shapes and flags of its call. It is suspect once a call of it gave
other bits, and from the start where PyTorch's documentation calls it nondeterministic.
"""

from __future__ import annotations

from torch import Tensor

from nondet_probe.env.torch_private import OpOverload
from nondet_probe.probe.declared import NAMES, arguments_of, declared
from nondet_probe.probe.replay import Call

__all__ = ["SUSPECT_K", "K", "Suspects", "shape_class"]

K = 2
SUSPECT_K = 20

# Arguments, besides tensors and flags, by which kernels choose their way.
_TELLING = frozenset(("dim", "dims", "reduce", "mode"))


def shape_class(call: Call) -> str:
    """Dtype and sizes of each tensor operand, sizes rounded up to powers of two, and the flags:
    such as "float32[1024, 64], int64[64], accumulate=True"."""
    told = []
    for tensor in call.operands:
        sizes = ", ".join(str(_rounded(size)) for size in tensor.shape)
        layout = "" if tensor.is_contiguous() else " strided"
        told.append(f"{str(tensor.dtype).removeprefix('torch.')}[{sizes}]{layout}")
    more = len(told) - 4
    if more > 0:  # the lists of a `_foreach_` op
        told[4:] = [f"and {more} more"]
    if isinstance(call.op, OpOverload):
        for name, value in arguments_of(call.op, call.args, call.kwargs).items():
            if name == "pin_memory":
                continue
            if isinstance(value, bool) or (name in _TELLING and not isinstance(value, Tensor)):
                told.append(f"{name}={value}")
    return ", ".join(told)


def _rounded(size: int) -> int:
    return 1 << (size - 1).bit_length() if size > 0 else 0


class Suspects:
    """k: executions of a call in all; suspect_k: of a suspect one, or None to make no difference
    between them."""

    def __init__(self, k: int, suspect_k: int | None) -> None:
        self._k = k
        self._more = suspect_k
        self._ops: set[str] = set()
        self._classes: set[tuple[str, str]] = set()

    def executions(self, call: Call) -> int:
        if self._more is None:
            return self._k
        name = call.plan.name
        # Most calls end here: the class is spelled only where it may matter.
        if name in self._ops and (name, shape_class(call)) in self._classes:
            return self._more
        stem = name.rpartition(".")[0]
        if (stem in NAMES or name in NAMES) and declared(call.op, call.args, call.kwargs):
            return self._more
        return self._k

    def differed(self, call: Call) -> int:
        """Note that this call gave other bits; returns how often it is to be executed now."""
        if self._more is None:
            return self._k
        self._ops.add(call.plan.name)
        self._classes.add((call.plan.name, shape_class(call)))
        return self._more
