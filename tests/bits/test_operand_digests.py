"""Many tensors in one call: each has the digest that it has alone; all else is told in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nondet_probe.bits import digest
from nondet_probe.bits.dtypes import CODES
from nondet_probe.bits.via_c import operand_digests
from nondet_probe.env import thread_count


def alone(*tensors: torch.Tensor) -> bytes:
    """As two little-endian words each."""
    hexes = [digest(tensor).hex for tensor in tensors]
    return b"".join(
        int(half, 16).to_bytes(8, "little") for text in hexes for half in (text[:16], text[16:])
    )


def of(given: Any) -> tuple[bytes, str, list[type] | None]:
    found = operand_digests(given)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_every_dtype(dtype: torch.dtype) -> None:
    x = torch.arange(48, dtype=torch.uint8).repeat(16).view(dtype).reshape(2, -1)
    assert of(x) == (alone(x), "", None)


def test_layouts_and_sizes() -> None:
    x = torch.arange(5000.0).reshape(50, 100)
    views = [x, x.t(), x[3:, ::2], x[0, 0], x[:, :0], x.expand(2, 50, 100), x.double()]
    assert of(views) == (alone(*views), "", None)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_share_the_blocks_of_all_tensors(threads: int) -> None:
    draw = torch.Generator().manual_seed(1)
    sizes = [0, 1, 1024, 1025, 300_000, 0, 5, 40_000, 2048]
    tensors = [torch.randn(size, generator=draw) for size in sizes]
    tensors.append(torch.randn(300, 200, generator=draw).t())
    with thread_count(threads):
        assert of(tensors)[0] == alone(*tensors)


def test_a_changed_bit_anywhere_is_seen_in_its_tensor_only() -> None:
    tensors = [torch.zeros(size) for size in (70_000, 3, 90_000)]
    before = of(tensors)[0]
    for place, tensor in enumerate(tensors):
        tensor.view(torch.int32)[-1] = 1
        after = of(tensors)[0]
        changed = [at for at in range(3) if before[16 * at :][:16] != after[16 * at :][:16]]
        assert changed == [place]
        before = after


def test_what_is_no_tensor_is_told() -> None:
    x = torch.ones(2)
    given = [x, [x, None], {"dim": (1, -0.0), "dtype": torch.float32}, "a", True, 1j]
    found = of(given)
    assert found[0] == alone(x, x)
    assert found[1] == "[T,[T,None,],{'dim':[1,-0.0,],'dtype':torch.float32,},'a',True,1j,]"
    assert of([x, 1])[1] != of([x, True])[1] != of([x, 1.0])[1]
    assert of([x, x])[1] == of((x, [x]))[1] == ""
    assert operand_digests(given, tensors=False) == (b"", found[1], None)


def test_other_objects_are_named_and_generators_passed_over() -> None:
    class Own:
        pass

    assert of([torch.ones(1), Own(), torch.Generator()])[2] == [Own]
    assert of([torch.Generator()])[2] is None
    endless: list[Any] = []
    endless.append(endless)
    assert of(endless)[2] == [list]


class Subclass(torch.Tensor):
    pass


def shrunk() -> torch.Tensor:
    whole = torch.ones(8)
    part = whole[4:]
    whole.untyped_storage().resize_(0)
    return part


UNREADABLE: dict[str, Callable[[], torch.Tensor]] = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "meta": lambda: torch.ones(2, device="meta"),
    "subclass": lambda: torch.ones(2).as_subclass(Subclass),
    "conj": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "neg": lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "zero": lambda: torch._efficientzerotensor(2),
    "shrunk": shrunk,
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_does_not_lie_there_as_it_is_gives_none(kind: str) -> None:
    given = [torch.ones(1), [UNREADABLE[kind]()]]
    assert operand_digests(given) is None
    assert operand_digests(given, tensors=False) == (b"", "", None)
