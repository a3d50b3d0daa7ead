"""Change one bit of a tensor, and write down enough to undo and replay it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.bits.stored import STORED, Stored
from nondet_probe.errors import UsageError

__all__ = ["BitChange", "flip_bit", "step_ulp"]


@dataclass(frozen=True)
class BitChange:
    """One changed element. index is flat (row-major), in elements.

    bit: the flipped bit, 0 the least significant; None for a step of one ulp, which may carry.
    before and after: the element's bits as hex, such as "0x3f800000".
    """

    name: str
    index: int
    bit: int | None
    dtype: str
    before: str
    after: str

    def undo(self, tensor: Tensor) -> None:
        """Put `before` back where `after` stands. Raises UsageError when something else does."""
        self._swap(tensor, found=self.after, written=self.before)

    def replay(self, tensor: Tensor) -> None:
        """Write `after` where `before` stands. Raises UsageError when something else does."""
        self._swap(tensor, found=self.before, written=self.after)

    def _swap(self, tensor: Tensor, found: str, written: str) -> None:
        kind, element, index = _element(tensor, self.index)
        if dtype_name(tensor.dtype) != self.dtype:
            raise UsageError(
                f"this change was made in a {self.dtype} tensor, got {dtype_name(tensor.dtype)}"
            )
        bits = _hex(_read(element, kind), kind)
        if bits != found:
            raise UsageError(
                f"expected {found} at index {index} of {self.name or 'the tensor'}, found {bits}: "
                "this is not the tensor, or not the moment, that the change belongs to"
            )
        _write(element, kind, int(written, 16))


def flip_bit(tensor: Tensor, index: int | Sequence[int], bit: int, name: str = "") -> BitChange:
    """Flip one bit of one element, in place, without autograd seeing it.

    tensor: of any strides, a leaf that requires grad too; float64, float32, bfloat16, float16, an
    8-bit float, an integer or bool. index: flat (row-major) or one number a dimension, from 0.
    bit: 0 is the least significant, the only one of a bool. name: kept in the record, which can
    undo and replay. A backward pass that needs the tensor as it was raises, as after any change in
    place, except where the tensor given is `x.data`.

    Raises TypeError for other tensors, UsageError for an index or a bit out of range and for a
    tensor whose elements share memory (an expanded one), where several would change at once.
    """
    kind, element, flat = _element(tensor, index)
    bit = operator.index(bit)
    if not 0 <= bit < kind.bits:
        dtype = dtype_name(tensor.dtype)
        known = (
            f"bits 0 (least significant) to {kind.bits - 1}" + " (sign)" * (kind.sign > 0)
            if kind.bits > 1
            else "bit 0 alone"
        )
        raise UsageError(f"bit {bit} is out of range: {dtype} has {known}")
    before = _read(element, kind)
    return _change(tensor, element, kind, name, flat, bit, before, before ^ (1 << bit))


def step_ulp(
    tensor: Tensor, index: int | Sequence[int], direction: int, name: str = ""
) -> BitChange:
    """Move one element to the next float up (+1) or down (-1), in place; else as `flip_bit`.

    Neighbours are those of `ulp_distance`, which is 1 afterwards: between the smallest negative
    number and the smallest positive one lie -0.0 and 0.0. Up from the largest finite number is
    infinity (where the dtype has one) and down from infinity is that number again.

    Raises UsageError as well where there is no next float: in integers and bools, at a NaN, and
    beyond the last number.
    """
    kind, element, flat = _element(tensor, index)
    if direction not in (1, -1):
        raise UsageError(f"direction must be +1 (up) or -1 (down), got {direction!r}")
    dtype = dtype_name(tensor.dtype)
    if kind.last is None:
        raise UsageError(f"elements of dtype {dtype} have no ulp: flip a bit instead, such as 0")
    before = _read(element, kind)
    if kind.is_nan(before):
        raise UsageError(
            f"the element at index {flat} is NaN ({_hex(before, kind)}): no next float"
        )
    after = kind.pattern(kind.place(before) + direction)
    if after is None:
        raise UsageError(
            f"the element at index {flat} is the {'largest' if direction > 0 else 'smallest'} "
            f"{dtype} ({_hex(before, kind)}): there is no float beyond it"
        )
    return _change(tensor, element, kind, name, flat, None, before, after)


def _change(
    tensor: Tensor,
    element: Tensor,
    kind: Stored,
    name: str,
    index: int,
    bit: int | None,
    before: int,
    after: int,
) -> BitChange:
    _write(element, kind, after)
    return BitChange(
        name, index, bit, dtype_name(tensor.dtype), _hex(before, kind), _hex(after, kind)
    )


def _element(tensor: Tensor, index: int | Sequence[int]) -> tuple[Stored, Tensor, int]:
    """(its dtype's, the element as a 0-d integer view without autograd, flat index)."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise TypeError(
            f"expected a plain torch.Tensor or torch.nn.Parameter, got {type(tensor).__name__}"
        )
    if tensor.dtype not in STORED:
        known = ", ".join(dtype_name(dtype) for dtype in STORED)
        raise TypeError(
            f"dtype {dtype_name(tensor.dtype)} is not taken; bits can be changed in {known}"
        )
    if tensor.layout is not torch.strided or tensor.is_neg() or tensor.is_meta:
        raise TypeError(
            "only strided tensors that hold their own bits can be changed (no sparse layout, no "
            "meta device, no lazily negated view)"
        )
    place, flat = _locate(tensor, index)
    _refuse_shared(tensor)
    kind = STORED[tensor.dtype]
    return kind, tensor.detach()[place].view(kind.integers), flat


def _locate(tensor: Tensor, index: int | Sequence[int]) -> tuple[tuple[int, ...], int]:
    """The index as one number a dimension and as a flat one."""
    shape = tuple(tensor.shape)
    if isinstance(index, Sequence):
        place = tuple(operator.index(i) for i in index)
        if len(place) != len(shape) or any(
            not 0 <= i < size for i, size in zip(place, shape, strict=True)
        ):
            raise UsageError(
                f"index {place} is out of range for shape {shape}: one number a dimension, each "
                "from 0 to its size - 1"
            )
        flat = 0
        for i, size in zip(place, shape, strict=True):
            flat = flat * size + i
        return place, flat
    flat = operator.index(index)
    if not 0 <= flat < tensor.numel():
        allowed = f"0 to {tensor.numel() - 1}" if tensor.numel() else "none, it is empty"
        raise UsageError(f"index {flat} is out of range for shape {shape}: allowed are {allowed}")
    rest = flat
    reverse: list[int] = []
    for size in reversed(shape):
        rest, i = divmod(rest, size)
        reverse.append(i)
    return tuple(reversed(reverse)), flat


def _refuse_shared(tensor: Tensor) -> None:
    """Raise UsageError unless the strides show that every element has its own memory."""
    reach = 0
    strides = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    for stride, size in strides:
        if size > 1:
            if stride <= reach:
                raise UsageError(
                    f"elements of this tensor share memory (shape {tuple(tensor.shape)}, strides "
                    f"{tensor.stride()}), so more than one would change: change the tensor it was "
                    "expanded from, or a copy"
                )
            reach += stride * (size - 1)


def _read(element: Tensor, kind: Stored) -> int:
    return int(element.item()) % (1 << kind.width)


def _write(element: Tensor, kind: Stored, bits: int) -> None:
    with torch.no_grad():
        element.fill_(bits - (1 << kind.width) if bits >> (kind.width - 1) else bits)


def _hex(bits: int, kind: Stored) -> str:
    return f"0x{bits:0{kind.width // 4}x}"
