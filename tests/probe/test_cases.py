"""Every op of the registry can be measured; and the cases are right about what they measure."""

from __future__ import annotations

import pytest
import torch

from nondet_probe.bits import bit_equal
from nondet_probe.ops import ops, variants
from nondet_probe.probe.cases import CASES, bytes_moved, tensors

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def without_case() -> set[str]:
    return set(ops()) - set(CASES)


def test_every_op_has_a_case() -> None:
    assert without_case() == set()


def test_an_op_without_a_case_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CASES, "sum")
    assert without_case() == {"sum"}


def test_no_case_is_left_of_an_op_that_is_gone() -> None:
    assert set(CASES) <= set(ops())


@pytest.mark.parametrize("n", [1, 1000])
@pytest.mark.parametrize("op", CASES)
def test_a_case_gives_what_torch_gives(op: str, n: int) -> None:
    """As many tensors of the same dtypes and shapes, and numbers that are near: not another op."""
    case = CASES[op]
    inputs = case.make(n, torch.float64)
    expected = tensors(case.torch(*inputs))
    for variant in variants(op):
        found = tensors(case.ours(variant.name, *inputs))
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            scale = max(1.0, float(theirs.detach().abs().max()))
            assert float((ours - theirs).detach().abs().max()) <= 1e-9 * scale * n


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", CASES)
def test_inputs_are_the_same_each_time_and_can_be_read(op: str, dtype: torch.dtype) -> None:
    case = CASES[op]
    first, second = case.make(100, dtype), case.make(100, dtype)
    assert all(bit_equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(tensor.is_contiguous() for tensor in first)
    assert sum(tensor.nbytes for tensor in first) > 0


def test_bytes_moved() -> None:
    x, y = torch.ones(10), torch.ones(3, dtype=torch.float64)
    assert bytes_moved((x,), (y, y)) == 40 + 24 + 24
