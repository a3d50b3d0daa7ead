"""Bad input on a GPU: refused with the words that it is refused with on the CPU, and what is there
is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from places import CELLS, Place
from torch import Tensor

from nondet_probe import ops
from nondet_probe.errors import UsageError
from nondet_probe.ops.registry import variants

Call = Callable[[Callable[[Tensor], Tensor]], Any]

INTEGERS = torch.tensor([0, 2, 7, 1, -9])
TABLE = torch.ones(3)
VALUES = torch.ones(5)
ROWS = torch.ones(5, 3)


# op: a call with an index out of range; put takes a tensor to where it is to be.
OUTSIDE: dict[str, Callable[[Callable[[Tensor], Tensor], str], Any]] = {
    "index_add": lambda put, v: ops.index_add(
        put(TABLE), 0, put(INTEGERS), put(VALUES), variant=v
    ),
    "scatter_add": lambda put, v: ops.scatter_add(
        put(TABLE), 0, put(INTEGERS), put(VALUES), variant=v
    ),
    "index_put": lambda put, v: ops.index_put(
        put(TABLE), (put(INTEGERS),), put(VALUES), variant=v
    ),
    "index": lambda put, v: ops.index(put(TABLE), (put(INTEGERS),), variant=v),
    "embedding": lambda put, v: ops.embedding(put(INTEGERS), put(ROWS[:3]), variant=v),
    "bincount": lambda put, v: ops.bincount(put(INTEGERS), put(VALUES), 3, variant=v),
    "cross_entropy": lambda put, v: ops.cross_entropy(put(ROWS), put(INTEGERS), variant=v),
    "segment_sum": lambda put, v: ops.segment_sum(
        put(VALUES), lengths=put(INTEGERS), variant=v
    ),
}  # fmt: skip
WITH_KERNELS = sorted({(cell.case.op, cell.variant) for cell in CELLS})


@pytest.mark.parametrize(
    ("op", "variant"), [(op, variant) for op, variant in WITH_KERNELS if op in OUTSIDE]
)
def test_what_is_out_of_range_is_named_as_on_the_cpu(op: str, variant: str, place: Place) -> None:
    with pytest.raises((IndexError, UsageError)) as on_cpu:
        OUTSIDE[op](lambda one: one, variant)
    given: list[tuple[Tensor, Tensor]] = []

    def put(one: Tensor) -> Tensor:
        there = one.to(place.device).clone()
        given.append((there, one))
        return there

    with place.inside(), pytest.raises(on_cpu.type) as found:
        OUTSIDE[op](put, variant)
    assert str(found.value) == str(on_cpu.value)
    assert all(torch.equal(there.cpu(), one) for there, one in given)
    with place.inside():  # the device is as good as it was
        assert ops.sum(torch.ones(9, device=place.device)).item() == 9


def test_every_op_that_takes_indices_is_asked() -> None:
    known = {op for op, _ in WITH_KERNELS}
    assert set(OUTSIDE) | {"histogram"} >= known & {
        *("index_add", "scatter_add", "index_put", "index", "embedding"),
        *("bincount", "cross_entropy", "segment_sum", "histogram"),
    }
    assert set(OUTSIDE) <= known


@pytest.mark.parametrize(
    ("op", "variant"), [(op, variant) for op, variant in WITH_KERNELS if op in ("sum", "dot")]
)
def test_a_dtype_that_is_not_taken_is_named(op: str, variant: str, place: Place) -> None:
    x = torch.ones(4, dtype=torch.int32, device=place.device)
    call = getattr(ops, op)
    given = (x,) if op == "sum" else (x, x)
    with place.inside(), pytest.raises(TypeError, match=rf"{op} variant '{variant}' takes.*float"):
        call(*given, variant=variant)


@pytest.mark.parametrize("variant", ["kahan", "pairwise"])
def test_a_variant_without_a_kernel_is_named(variant: str, place: Place) -> None:
    assert variant in {one.name for one in variants("sum")}
    x = torch.ones(4, device=place.device)
    words = rf"sum variant '{variant}' has no kernel for CUDA; taken are atomic, .*x\.cpu\(\)"
    with place.inside(), pytest.raises(UsageError, match=words):
        ops.sum(x, variant=variant)


def test_threads_are_refused(place: Place) -> None:
    x = torch.ones(4, device=place.device)
    with place.inside(), pytest.raises(UsageError, match="threads is for tensors on cpu"):
        ops.sum(x, threads=2)


MIXED: dict[str, Call] = {
    "dot": lambda put: ops.dot(put(VALUES), VALUES),
    "matmul": lambda put: ops.matmul(put(ROWS), ROWS.T),
    "index_add": lambda put: ops.index_add(put(TABLE), 0, INTEGERS % 3, put(VALUES)),
    "scatter_add": lambda put: ops.scatter_add(put(TABLE), 0, put(INTEGERS % 3), VALUES),
    "index_put": lambda put: ops.index_put(TABLE, (put(INTEGERS % 3),), VALUES),
    "index": lambda put: ops.index(TABLE, (put(INTEGERS % 3),)),
    "embedding": lambda put: ops.embedding(INTEGERS % 3, put(ROWS[:3])),
    "segment_sum": lambda put: ops.segment_sum(put(VALUES), lengths=torch.tensor([2, 3])),
    "bincount": lambda put: ops.bincount(INTEGERS % 3, put(VALUES)),
    "histogram": lambda put: ops.histogram(put(VALUES), 3, range=(0, 1), weight=VALUES),
    "layer_norm": lambda put: ops.layer_norm(put(ROWS), (3,), torch.ones(3)),
    "rms_norm": lambda put: ops.rms_norm(put(ROWS), (3,), torch.ones(3)),
    "cross_entropy": lambda put: ops.cross_entropy(put(ROWS), INTEGERS % 3),
}

OPERATORS = {"histogram": "histogram_edges", "rms_norm": "layer_norm"}
"""Those that look at the device first, of ops that have others of torch behind them."""


@pytest.mark.gpu
@pytest.mark.parametrize("op", MIXED)
def test_tensors_on_two_devices_are_refused(op: str) -> None:
    with pytest.raises(TypeError, match=rf"{op} takes tensors on one device, got .*cuda:0"):
        MIXED[op](lambda one: one.to("cuda:0"))


@pytest.mark.parametrize("op", MIXED)
def test_these_are_good_but_for_the_device(op: str) -> None:
    MIXED[op](lambda one: one)


@pytest.mark.parametrize("op", MIXED)
def test_tensors_without_data_are_refused(op: str) -> None:
    """The same where there is no GPU: meta is another device."""
    told = OPERATORS.get(op, op)
    with pytest.raises(TypeError, match=rf"^{told} takes tensors on cpu or cuda, got one on meta"):
        MIXED[op](lambda one: one.to("meta"))
