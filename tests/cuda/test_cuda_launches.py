"""Streams, graphs and several devices. On the emulated grid, which has none of these, the same
bodies run with everything in one order."""

from __future__ import annotations

import pytest
import torch
from places import CELLS, GPU, WAITING, Cell, Place, differences
from torch import Tensor

from nondet_probe import ops
from nondet_probe.bits.digest import digests
from nondet_probe.errors import UsageError
from nondet_probe.ops.registry import Guarantee
from nondet_probe.ops.via_cuda import sums

Inputs = tuple[Tensor, ...]

IN_FLOAT32 = [cell for cell in CELLS if cell.dtype is torch.float32]
ORDERED = [cell for cell in IN_FLOAT32 if cell.guarantee >= Guarantee.LAUNCH_INVARIANT]
CAPTURED = [cell for cell in ORDERED if cell.case.op not in WAITING]
NOT_CAPTURED = [cell for cell in IN_FLOAT32 if cell.case.op in WAITING]


def on_a_side_stream(cell: Cell, inputs: Inputs, place: Place) -> Inputs:
    """The result of a call on a stream of its own, on which the inputs come late."""
    late = place.put([torch.zeros_like(one) for one in inputs])
    there = place.put(inputs)
    with place.side_stream():
        place.delay()
        for one, other in zip(late, there, strict=True):
            one.copy_(other)
        return place.result(cell, late)


@pytest.mark.parametrize("cell", ORDERED, ids=str)
def test_work_goes_to_the_current_stream(cell: Cell, place: Place) -> None:
    inputs = cell.inputs(place.sizes[0] if cell.case.most else place.sizes[1])
    result = on_a_side_stream(cell, inputs, place)
    expected = cell.call(inputs)
    assert differences(result, expected) == [0] * len(expected)


@pytest.mark.gpu
def test_work_on_another_stream_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: launches that go to the default stream, where the inputs are still zeros."""
    monkeypatch.setattr(sums, "stream_of", lambda _: 0)
    (cell,) = [one for one in ORDERED if str(one) == "sum-fixed_order-float32"]
    inputs = cell.inputs(1000)
    assert differences(on_a_side_stream(cell, inputs, GPU), cell.call(inputs)) == [1]


@pytest.mark.parametrize("cell", CAPTURED, ids=str)
def test_a_graph_gives_the_same_bits_when_it_is_replayed(cell: Cell, place: Place) -> None:
    inputs = cell.inputs(place.sizes[0] if cell.case.most else place.sizes[1])
    given = place.put([torch.zeros_like(one) for one in inputs])
    there = place.put(inputs)

    def fill() -> None:
        for one, other in zip(given, there, strict=True):
            one.copy_(other)

    result = place.replayed(lambda: place.result(cell, given), fill)
    expected = cell.call(inputs)
    assert differences(result, expected) == [0] * len(expected)


@pytest.mark.parametrize("cell", NOT_CAPTURED, ids=str)
def test_what_has_to_wait_is_not_captured(cell: Cell, place: Place) -> None:
    given = place.put(cell.inputs(place.sizes[0]))
    place.result(cell, given)  # loads the kernels
    op = "scatter|" + cell.case.op
    with place.capturing(), pytest.raises(UsageError, match=rf"^({op}).*, in all variants.*graph"):
        place.result(cell, given)
    place.result(cell, given)  # nothing is left of the attempt


@pytest.mark.parametrize("cell", CAPTURED, ids=str)
def test_nothing_else_refuses_to_be_captured(cell: Cell, place: Place) -> None:
    given = place.put(cell.inputs(place.sizes[0]))
    place.result(cell, given)
    with place.capturing():
        place.result(cell, given)


@pytest.mark.gpu(devices=2)
@pytest.mark.parametrize("cell", ORDERED, ids=str)
def test_a_tensor_on_another_device_is_computed_with_there(cell: Cell) -> None:
    inputs = cell.inputs(1000 if not cell.case.most else 2)
    given = tuple(one.to("cuda:1") for one in inputs)
    with torch.cuda.device(0):
        result = cell.call(given)
    assert {one.device for one in result} == {torch.device("cuda", 1)}
    expected = cell.call(inputs)
    assert differences(result, expected) == [0] * len(expected)


@pytest.mark.gpu(devices=2)
def test_two_devices_at_once() -> None:
    x, y = torch.ones(5, device="cuda:0"), torch.ones(5, device="cuda:1")
    with pytest.raises(TypeError, match="dot takes tensors on one device, got cuda:0 and cuda:1"):
        ops.dot(x, y)
    assert digests([x, y]) == digests([x.cpu(), y.cpu()])
