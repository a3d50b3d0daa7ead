"""Tensors on their way into `nondet_probe._C`; the only module in `bits` that imports it.

A tensor is taken when its elements lie somewhere as plain bits: strided layout, a dtype of
`dtypes.CODES`, class `torch.Tensor` or `torch.nn.Parameter`. A subclass may keep its numbers
anywhere (a quantized weight, a shard, no data at all), so it is refused, not guessed at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES, dtype_name

__all__ = [
    "bytes_equal",
    "compare",
    "contiguous",
    "digest",
    "dtype_code",
    "has_memory",
    "host",
    "operand_digests",
    "read_stream",
    "sketch",
    "surely_equal",
    "threads_for",
    "ulp_distance",
]

_PLAIN_CLASSES = (torch.Tensor, torch.nn.Parameter)
# Below this, starting a thread (some 20 us) costs more than it saves.
_BYTES_PER_THREAD = 1 << 20
# Of many tensors at once, which all are still in a cache.
_BYTES_ALONE = 1 << 19
_reader = _C.OperandReader(
    CODES,
    _PLAIN_CLASSES,
    (torch.dtype, torch.device, torch.layout, torch.memory_format),
    (torch.Generator,),
    torch.strided,
    Tensor,
)


def dtype_code(tensor: Tensor) -> int:
    """The number of the tensor's dtype; TypeError when its bits cannot be read as they are."""
    code = CODES.get(tensor.dtype, 0) if type(tensor) in _PLAIN_CLASSES else 0
    if code == 0 or tensor.layout is not torch.strided or tensor.is_meta or not has_memory(tensor):
        raise TypeError(_why_not(tensor))
    return code


def has_memory(tensor: Tensor) -> bool:
    """Whether all elements lie in memory: autograd has zeros that do not, and storage can be
    shrunk below a tensor that views it."""
    reach = tensor.numel()
    if reach == 0:
        return True
    if tensor.data_ptr() == 0:
        return False
    if not tensor.is_contiguous():
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        reach = 1 + sum((size - 1) * stride for size, stride in steps)
    end = (tensor.storage_offset() + reach) * tensor.element_size()
    return end <= tensor.untyped_storage().nbytes()


def _why_not(tensor: object) -> str:
    if not isinstance(tensor, Tensor):
        return f"expected a torch.Tensor, got {type(tensor).__name__}"
    known = ", ".join(dtype_name(dtype) for dtype in CODES)
    if type(tensor) not in _PLAIN_CLASSES:
        return (
            f"{type(tensor).__name__} is a tensor subclass that may keep its elements elsewhere; "
            "torch.Tensor and torch.nn.Parameter are taken: pass the plain tensors inside it, or "
            "`tensor.as_subclass(torch.Tensor)` where that holds the data"
        )
    if tensor.dtype not in CODES:
        return (
            f"dtype {dtype_name(tensor.dtype)} is not taken; taken are {known}. For a quantized "
            "tensor pass `tensor.int_repr()`"
        )
    if tensor.layout is not torch.strided:
        return (
            f"layout {tensor.layout} is not taken, only torch.strided: pass the tensors inside it "
            "(indices and values) or `tensor.to_dense()`"
        )
    if tensor.is_meta:
        return "a tensor on the meta device has no elements to read"
    return (
        f"this tensor of shape {tuple(tensor.shape)} has no memory behind it, or not enough: its "
        "storage was shrunk, or it is a zero of autograd's own (pass a clone of that)"
    )


def host(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy in host memory with conj and neg bits carried out."""
    if tensor.is_cpu and not tensor.is_conj() and not tensor.is_neg():
        return tensor
    return tensor.detach().cpu().resolve_conj().resolve_neg()


def contiguous(tensor: Tensor) -> Tensor:
    """As `host`, and row-major."""
    tensor = host(tensor)
    return tensor if tensor.is_contiguous() else tensor.detach().contiguous()


def threads_for(size: int, threads: int | None) -> int:
    """How many threads to use for `size` bytes: torch's own setting, fewer for little work."""
    if threads is None:
        if size < 2 * _BYTES_PER_THREAD:
            return 1
        return min(torch.get_num_threads(), size // _BYTES_PER_THREAD)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    return threads


def bytes_equal(a: Tensor, b: Tensor) -> bool:
    """Whether two contiguous host tensors of one dtype and shape hold the same bytes."""
    return _C.bytes_equal(a.data_ptr(), b.data_ptr(), a.nbytes)


def compare(
    code: int, a: Tensor, b: Tensor, threads: int, isa: str = ""
) -> tuple[int, int, int, float, float, float, float, tuple[int, ...]]:
    """(different, max_ulp, first, sum_squares_difference, sum_squares, sum_squares_other, dot,
    ulps) of contiguous host tensors.

    first is -1 where nothing differs; see `csrc/compare.hpp`.
    """
    return _C.compare(code, a.data_ptr(), b.data_ptr(), a.numel(), threads, isa)


def ulp_distance(code: int, a: Tensor, b: Tensor, isa: str = "") -> Tensor:
    """int64 distances of contiguous host tensors of a real floating dtype."""
    distances = torch.empty(a.shape, dtype=torch.int64, device="cpu")
    if not has_memory(distances):
        raise TypeError("no distances can be computed under a mode that makes tensors without data")
    _C.ulp_distance(code, a.data_ptr(), b.data_ptr(), a.numel(), distances.data_ptr(), isa)
    return distances


def digest(code: int, tensor: Tensor, threads: int, isa: str = "") -> str:
    """32 hex digits of a strided host tensor without conj and neg bits; read where it lies."""
    return _C.digest(code, tensor.data_ptr(), tensor.shape, tensor.stride(), threads, isa)


def operand_digests(
    given: object, *, tensors: bool = True
) -> tuple[bytes, str, list[type] | None] | None:
    """What nested tuples, lists and dicts hold, in order: the digests of all tensors, 16 bytes
    each (two little-endian words); a text of all else, "" where there is nothing else; and the
    types of objects that were not looked into, None where there are none.

    None when a tensor is not of `_PLAIN_CLASSES`, or cannot be read where it lies. tensors: False
    for the text alone. Some ten microseconds for a small call; threads are torch's own.
    """
    return _reader.digests(given, tensors, torch.get_num_threads(), _BYTES_ALONE)


def surely_equal(one: object, other: object) -> bool:
    """Whether two lists hold tensors only, alike in dtype, shape, strides and every bit.

    False says nothing: they may be equal, and lie in memory in ways that this does not look at.
    """
    return _reader.surely_equal(one, other, torch.get_num_threads(), _BYTES_ALONE)


def sketch(given: Sequence[tuple[int, Tensor, int]], threads: int, isa: str = "") -> Tensor:
    """float64 [4096] of (dtype code, strided host tensor without conj and neg bits, seed) each;
    see `csrc/sketch.hpp`."""
    buckets = torch.empty(4096, dtype=torch.float64, device="cpu")
    if not has_memory(buckets):
        raise TypeError("no sketch can be computed under a mode that makes tensors without data")
    tensors = [(code, one.data_ptr(), one.shape, one.stride(), seed) for code, one, seed in given]
    _C.sketch(tensors, threads, isa, buckets.data_ptr())
    return buckets


def read_stream(tensor: Tensor, threads: int, isa: str = "") -> int:
    """The exclusive or of a contiguous host tensor's 64-bit words: every byte is read, and as good
    as nothing is done with it."""
    return _C.read_stream(tensor.data_ptr(), tensor.nbytes, threads, isa)
