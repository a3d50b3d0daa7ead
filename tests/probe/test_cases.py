"""Every op of the registry can be measured; and the cases are right about what they measure."""

from __future__ import annotations

import pytest
import torch

from nondet_probe.bits import bit_equal
from nondet_probe.ops import ops, variants
from nondet_probe.probe.case_calls import bytes_moved
from nondet_probe.probe.cases import CASES, Case

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


EVERY = [case for op in ops() for case in CASES.get(op, ())]
NAMES = [case.name for case in EVERY]


def without_case() -> set[str]:
    return {op for op in ops() if not CASES.get(op)}


def test_every_op_has_a_case() -> None:
    assert without_case() == set()


def test_an_op_without_a_case_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CASES, "sum")
    assert without_case() == {"sum"}


@pytest.mark.parametrize("n", [2, 1000])
@pytest.mark.parametrize("case", EVERY, ids=NAMES)
def test_a_case_gives_what_torch_gives(case: Case, n: int) -> None:
    """As many tensors of the same dtypes and shapes, and numbers that are near: not another op."""
    inputs = case.make(n, torch.float64)
    expected = case.torch(inputs)
    for variant in variants(case.op):
        found = case.ours(variant.name, inputs)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            assert bool((ours.isnan() == theirs.isnan()).all())
            scale = max(1.0, float(theirs.detach().nan_to_num().abs().max()))
            apart = (ours - theirs).detach().nan_to_num().abs()
            assert float(apart.max()) <= 1e-9 * scale * n


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", EVERY, ids=NAMES)
def test_inputs_are_the_same_each_time_and_can_be_read(case: Case, dtype: torch.dtype) -> None:
    first, second = case.make(100, dtype), case.make(100, dtype)
    assert all(bit_equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(tensor.is_contiguous() for tensor in first)
    assert sum(tensor.nbytes for tensor in first) > 0


def test_names_are_distinct() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(ops()) <= set(NAMES)  # the first case of an op has its name


def test_bytes_moved() -> None:
    x, y = torch.ones(10), torch.ones(3, dtype=torch.float64)
    assert bytes_moved((x,), (y, y)) == 40 + 24 + 24
