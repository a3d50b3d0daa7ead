"""Execute one op call again on bit-identical inputs, and tell whether its results differ."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nondet_probe.bits import ULP_MAX, bit_equal, compare, via_c
from nondet_probe.probe.operands import Copies, replaced, tensors_in, unreadable
from nondet_probe.probe.plan import Plan
from nondet_probe.probe.streams import Streams

__all__ = ["Call", "Difference", "NotComparableError", "TooLargeError", "difference", "results"]


class NotComparableError(Exception):
    """Results of an op that cannot be compared bit by bit; the message says which."""


class TooLargeError(NotComparableError):
    """A call whose copies would take more memory than is set aside for them."""

    def __init__(self, memory: int) -> None:
        super().__init__(f"calls whose copies would take more than {memory >> 20} MiB")


class Difference(NamedTuple):
    """Of the result that differs most: its elements, how many differ, largest ulp distance (None
    where it is not defined)."""

    elements: int
    different: int
    max_ulp: int | None


class Call:
    """One call of an op, taken before the op runs.

    Operands that it writes, and those that share memory with them, are copied now; the others are
    used as they are, so the call can be repeated until somebody else writes them. A call of an op
    from outside of ATen has all its operands copied, since its schema may not tell what it writes.
    memory: bytes that the copies of one execution may take; TooLargeError before any is made.
    """

    def __init__(
        self,
        op: Callable[..., Any],
        plan: Plan,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        streams: Streams | None = None,
        memory: int | None = None,
    ) -> None:
        self.op = op
        self.plan = plan
        self.args = args
        self.kwargs = kwargs
        self._tensors = {id(t): t for t in tensors_in((*args, *kwargs.values()))}
        to_copy = self._to_copy()
        # One copy is kept, another is what an execution writes.
        self.copied_bytes = 2 * sum(tensor.nbytes for tensor in to_copy)
        if memory is not None and self.copied_bytes > memory:
            raise TooLargeError(memory)
        self._copies = Copies(to_copy)
        self._streams = streams
        if streams is None and plan.draws:
            self._streams = Streams((*args, *kwargs.values()), everything=plan.opaque)

    def _written(self) -> list[Tensor]:
        return list(tensors_in(_written(self.plan, self.args, self.kwargs)))

    def _to_copy(self) -> list[Tensor]:
        if not (self.plan.written or self.plan.opaque):
            return []
        tensors = list(self._tensors.values())
        if self.plan.opaque:
            return tensors
        operands = self._written()
        memory = {t.untyped_storage().data_ptr() for t in operands} - {0}
        written = {id(t) for t in operands}
        return [t for t in tensors if id(t) in written or t.untyped_storage().data_ptr() in memory]

    def streams_now(self) -> Streams | None:
        """The streams that the op may move, as they are now; None where it moves none."""
        if not self.plan.draws:
            return None
        return Streams((*self.args, *self.kwargs.values()), everything=self.plan.opaque)

    def secret_write(self) -> bool:
        """Whether an operand changed that the schema does not call written; ask after the op ran.

        Asked of ops from outside of ATen only.
        """
        if not self.plan.opaque:
            return False
        memory = {t.untyped_storage().data_ptr() for t in self._written()}
        return any(
            not bit_equal(plain(self._tensors[key]), plain(copy))
            for key, copy in self._copies.fresh().items()
            if self._tensors[key].untyped_storage().data_ptr() not in memory
        )

    def again(self) -> list[Any]:
        """Results of one more execution, on fresh copies, from the same state of the streams."""
        args, kwargs = self._prepared()
        return results(self.plan, args, kwargs, self.op(*args, **kwargs))

    def timed(self, op: Callable[..., Any] | None = None) -> tuple[list[Any], float]:
        """As `again`, with the seconds the op itself took; op: another one to call instead."""
        args, kwargs = self._prepared()
        self._finish()
        start = time.perf_counter()
        output = (op or self.op)(*args, **kwargs)
        self._finish()
        seconds = time.perf_counter() - start
        return results(self.plan, args, kwargs, output), seconds

    def _prepared(self) -> tuple[list[Any], dict[str, Any]]:
        if self._streams is not None:
            self._streams.put_back()
        return self.arguments()

    def _with(self, copies: dict[int, Tensor]) -> tuple[list[Any], dict[str, Any]]:
        return (
            [replaced(value, copies) for value in self.args],
            {name: replaced(value, copies) for name, value in self.kwargs.items()},
        )

    def _finish(self) -> None:
        if any(tensor.is_cuda for tensor in self._tensors.values()):
            torch.cuda.synchronize()

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Arguments as they were before the op ran; what it writes is a copy."""
        return self._with(self._copies.fresh())

    def kept(self) -> Call:
        """This call on operands of its own, so that it can be repeated at any time."""
        copies = self._copies.fresh()
        copies |= Copies(t for key, t in self._tensors.items() if key not in copies).fresh()
        return Call(self.op, self.plan, *self._with(copies), self._streams)

    @property
    def operands(self) -> list[Tensor]:
        return list(self._tensors.values())

    @property
    def nbytes(self) -> int:
        """What the operands take in memory, strides with gaps left aside."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    @property
    def shapes(self) -> list[str]:
        """Dtype and shape of each tensor operand, such as "float32[64, 10]"."""
        return [
            f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in self._tensors.values()
        ]


def _written(plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    return [
        args[position] if position < len(args) else kwargs.get(name)
        for position, name in plan.written
    ]


def results(plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> list[Any]:
    """Everything an execution left behind: the operands it wrote and its new outputs, flat."""
    outputs = output if plan.outputs > 1 else (output,)
    values = _written(plan, args, kwargs) + [outputs[position] for position in plan.new]
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list | tuple) else [value]
    return flat


def difference(one: Sequence[Any], other: Sequence[Any]) -> Difference | None:
    """How the results of two executions differ; None when all bits are the same.

    Raises NotComparableError for results that are neither tensors nor numbers.
    """
    if len(one) != len(other):
        return Difference(max(len(one), len(other)), abs(len(one) - len(other)), None)
    if via_c.surely_equal(one, other):
        return None
    worst: Difference | None = None
    for a, b in zip(one, other, strict=True):
        found = _difference(a, b)
        if found is not None and (worst is None or found.different > worst.different):
            worst = found
    return worst


def plain(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of no subclass; NotComparableError where its bits are hidden."""
    why = unreadable(tensor)
    if why is not None:
        raise NotComparableError(why)
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _difference(a: Any, b: Any) -> Difference | None:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = plain(a), plain(b)
        if bit_equal(a, b):
            return None
        if a.shape != b.shape or a.dtype is not b.dtype:
            return Difference(max(a.numel(), b.numel()), max(a.numel(), b.numel()), None)
        found = compare(a, b)
        return Difference(found.elements, found.different, _countable(found.max_ulp))
    if _number_bits(a) == _number_bits(b):
        return None
    ulp = None
    if isinstance(a, float) and isinstance(b, float):
        ulp = compare(_scalar(a), _scalar(b)).max_ulp
    return Difference(1, 1, _countable(ulp))


def _countable(ulp: int | None) -> int | None:
    return None if ulp == ULP_MAX else ulp


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def _number_bits(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, complex):
        return struct.pack("<dd", value.real, value.imag)
    if value is None or isinstance(value, bool | int | str | Tensor):
        return value
    raise NotComparableError(f"results of type {type(value).__name__}")
