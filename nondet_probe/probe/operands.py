"""Private copies of an op's operands, stride for stride, with every overlap among them kept.

A kernel may take another path for other strides or another alignment, so a copy has the strides of
the original and its address modulo 512 bytes. Operands that share memory (`x.add_(x)`, slices of
one buffer) share it in the copies too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["Copies", "replaced", "tensors_in", "unreadable"]

# What allocators give at least: torch aligns host memory to 64 bytes and CUDA memory to 512.
_HOST_ALIGNMENT = 64
_DEVICE_ALIGNMENT = 512


def tensors_in(args: Iterable[Any]) -> Iterator[Tensor]:
    """Every tensor among arguments or outputs of an op, also in its lists."""
    for value in args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            for item in value:
                if isinstance(item, Tensor):
                    yield item


def replaced(value: Any, copies: dict[int, Tensor]) -> Any:
    """`value` with each tensor exchanged for its copy, if it has one; lists of tensors anew."""
    if isinstance(value, Tensor):
        return copies.get(id(value), value)
    if isinstance(value, list | tuple):
        return type(value)(
            [copies.get(id(item), item) if isinstance(item, Tensor) else item for item in value]
        )
    return value


def unreadable(tensor: Tensor) -> str | None:
    """Why the bits of `tensor` cannot be copied and compared as they lie in memory, or None."""
    if tensor.layout is not torch.strided:
        return f"layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_nested:
        return "nested tensors"
    if tensor.is_quantized:
        return "quantized tensors"
    if tensor.is_meta or tensor._is_zerotensor():
        return "tensors without data"
    return None


class Copies:
    """The tensors as they are at the moment; `fresh()` gives new copies of that again and again."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        by_memory: dict[int, dict[int, Tensor]] = {}
        for tensor in tensors:
            # Without bytes there is nothing to share: the address of all empty memory is 0.
            address = tensor.untyped_storage().data_ptr() or -id(tensor)
            by_memory.setdefault(address, {})[id(tensor)] = tensor
        self._makers: list[Callable[[], dict[int, Tensor]]] = []
        self.nbytes = 0
        for group in by_memory.values():
            maker, size = _single(*group.values()) or _span(list(group.values()))
            self._makers.append(maker)
            self.nbytes += size

    def fresh(self) -> dict[int, Tensor]:
        """id of the original -> copy."""
        copies: dict[int, Tensor] = {}
        for maker in self._makers:
            copies.update(maker())
        return copies


_Maker = tuple[Callable[[], dict[int, Tensor]], int]


def _single(tensor: Tensor, *others: Tensor) -> _Maker | None:
    """The usual case, and the quick one: alone in its memory, contiguous and aligned."""
    if others or not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return None
    kept = tensor.detach().clone()
    if kept.stride() != tensor.stride() or (kept.data_ptr() - tensor.data_ptr()) % _step(tensor):
        return None
    key = id(tensor)
    return lambda: {key: kept.clone()}, kept.nbytes


def _step(tensor: Tensor) -> int:
    return _HOST_ALIGNMENT if tensor.is_cpu else _DEVICE_ALIGNMENT


def _span(tensors: list[Tensor]) -> _Maker:
    """Copies the bytes from the first to the last one that any of `tensors` uses."""
    if any(tensor.is_conj() or tensor.is_neg() for tensor in tensors):
        raise TypeError("a lazily conjugated or negated operand")
    memory, device = tensors[0].untyped_storage(), tensors[0].device
    extents = [_extent(tensor) for tensor in tensors]
    low, high = min(first for first, _ in extents), max(last for _, last in extents)
    size = high - low
    step = _step(tensors[0])
    address = memory.data_ptr() + low
    source = torch.empty(0, dtype=torch.uint8, device=device).set_(memory, low, (size,), (1,))
    layout = [
        (id(t), t.dtype, first - low, t.shape, t.stride())
        for t, (first, _) in zip(tensors, extents, strict=True)
    ]

    def copied(source: Tensor) -> tuple[Tensor, int]:
        buffer = torch.empty(size + step, dtype=torch.uint8, device=device)
        shift = (address - buffer.data_ptr()) % step
        buffer[shift : shift + size].copy_(source)
        return buffer, shift

    kept, kept_shift = copied(source)
    kept_bytes = kept[kept_shift : kept_shift + size]

    def make() -> dict[int, Tensor]:
        buffer, shift = copied(kept_bytes)
        copies = {}
        for key, dtype, offset, shape, strides in layout:
            at, rest = divmod(shift + offset, dtype.itemsize)
            if rest:
                raise TypeError("an operand that is not aligned to its element size")
            view = torch.empty(0, dtype=dtype, device=device)
            copies[key] = view.set_(buffer.untyped_storage(), at, shape, strides)
        return copies

    return make, size + step


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte, and the one after the last, of its storage that a tensor uses."""
    first = int(tensor.storage_offset()) * tensor.element_size()
    if tensor.numel() == 0:
        return first, first
    reach = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return first, first + (int(reach) + 1) * tensor.element_size()
