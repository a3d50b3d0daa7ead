"""Copies of operands: stride for stride, aligned alike, overlapping alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nondet_probe.bits import bit_equal
from nondet_probe.probe.operands import Copies, replaced, tensors_in, unreadable

SHAPED: dict[str, Callable[[], torch.Tensor]] = {
    "contiguous": lambda: torch.randn(4, 5),
    "transposed": lambda: torch.randn(4, 5).t(),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "gaps": lambda: torch.randn(8, 10)[1::2, 3::3],
    "unaligned": lambda: torch.randn(9)[1:],
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "overlapping": lambda: torch.randn(10).as_strided((4, 4), (2, 1)),
    "scalar": lambda: torch.randn(()),
    "empty": lambda: torch.randn(0, 3),
    "one row, odd strides": lambda: torch.randn(12).as_strided((1, 4), (77, 1)),
    "bfloat16, odd offset": lambda: torch.randn(9).bfloat16()[1:],
    "complex": lambda: torch.randn(3, dtype=torch.complex64)[1:],
    "bool": lambda: torch.tensor([True, False, True])[::2],
    "from numpy": lambda: torch.from_numpy(torch.randn(9).numpy()[1:]),
    "nan": lambda: torch.tensor([float("nan"), -0.0]),
}


@pytest.mark.parametrize("name", SHAPED)
def test_copies_are_exact(name: str) -> None:
    tensor = SHAPED[name]()
    copies = Copies([tensor])
    before = tensor.clone()
    one, two = copies.fresh()[id(tensor)], copies.fresh()[id(tensor)]
    for copy in (one, two):
        assert bit_equal(copy, before)
        assert copy.stride() == tensor.stride()
        if tensor.numel():
            assert (copy.data_ptr() - tensor.data_ptr()) % 64 == 0
            assert copy.data_ptr() != tensor.data_ptr()
    assert not tensor.numel() or one.data_ptr() != two.data_ptr()


@pytest.mark.parametrize("name", [n for n in SHAPED if n not in ("expanded", "overlapping")])
def test_copies_hold_what_was_there_before_the_write(name: str) -> None:
    tensor = SHAPED[name]()
    before = tensor.clone()
    copies = Copies([tensor])
    tensor.zero_()
    first = copies.fresh()[id(tensor)]
    assert bit_equal(first, before)
    first.zero_()
    assert bit_equal(copies.fresh()[id(tensor)], before)


def test_tensors_that_share_memory_share_it_in_the_copies() -> None:
    base = torch.arange(10.0)
    left, right, other = base[:6], base[4:], torch.arange(3.0)
    copied = Copies([left, right, other]).fresh()
    copied[id(left)][4] = 99.0
    assert copied[id(right)][0] == 99.0
    assert base[4] == 4.0
    assert torch.equal(copied[id(other)], other)


def test_one_memory_seen_as_two_dtypes() -> None:
    floats = torch.arange(4.0)
    bits = floats.view(torch.int32)[1:]
    copied = Copies([floats, bits]).fresh()
    copied[id(floats)][1] = 0.0
    assert copied[id(bits)][0] == 0


def test_a_tensor_that_occurs_twice_is_copied_once() -> None:
    x = torch.ones(3)
    copied = Copies([x, x]).fresh()
    assert list(copied) == [id(x)]


def test_lazily_conjugated_operands_are_refused() -> None:
    x = torch.randn(3, dtype=torch.complex64).conj()
    with pytest.raises(TypeError, match="conjugated"):
        Copies([x])


def test_replaced_keeps_everything_else() -> None:
    x, y = torch.ones(1), torch.ones(2)
    copies = {id(x): torch.zeros(1)}
    assert replaced(x, copies) is copies[id(x)]
    assert replaced(3, copies) == 3
    new = replaced([x, None, y], copies)
    assert new[0] is copies[id(x)]
    assert new[1] is None
    assert new[2] is y
    assert [t.numel() for t in tensors_in((x, [y, None], "s", (x,)))] == [1, 2, 1]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_cannot_be_read_says_why() -> None:
    assert unreadable(torch.ones(2)) is None
    assert unreadable(torch.ones(2).to_sparse()) == "layout sparse_coo"
    assert unreadable(torch.empty(2, device="meta")) == "tensors without data"
    assert unreadable(torch._efficientzerotensor(2)) == "tensors without data"
    nested = torch.nested.nested_tensor([torch.ones(2)], layout=torch.strided)
    assert unreadable(nested) == "nested tensors"
