from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nondet_probe.bits import BitChange, bit_equal, compare, flip_bit, step_ulp, ulp_distance
from nondet_probe.bits.digest import digest
from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.errors import UsageError

DTYPES = [
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]
FNUZ = [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
INTEGERS = [
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)


def patterns(values: list[int], dtype: torch.dtype) -> Tensor:
    data = b"".join(value.to_bytes(dtype.itemsize, "little") for value in values)
    return torch.tensor(list(data), dtype=torch.uint8).view(dtype)


def pattern_of(element: Tensor) -> int:
    return int.from_bytes(bytes(element.detach().reshape(1).view(torch.uint8).tolist()), "little")


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@every_dtype
def test_every_bit_of_an_element_flips_alone_and_comes_back(dtype: torch.dtype) -> None:
    tensor = normal(3, 4).to(dtype)
    original = tensor.clone()
    for bit in range(8 * dtype.itemsize):
        change = flip_bit(tensor, (1, 2), bit, name="w")
        before, after = pattern_of(original[1, 2]), pattern_of(tensor[1, 2])
        assert before ^ after == 1 << bit
        digits = 2 * dtype.itemsize
        assert change == BitChange(
            "w", 6, bit, dtype_name(dtype), f"0x{before:0{digits}x}", f"0x{after:0{digits}x}"
        )
        assert (compare(original, tensor).different, compare(original, tensor).first) == (1, 6)
        flipped = tensor.clone()
        change.undo(tensor)
        assert bit_equal(tensor, original)
        change.replay(tensor)
        assert bit_equal(tensor, flipped)
        change.undo(tensor)


@pytest.mark.parametrize("dtype", [*FNUZ, torch.float8_e8m0fnu, *INTEGERS], ids=dtype_name)
def test_every_bit_of_other_dtypes_flips_alone_and_comes_back(dtype: torch.dtype) -> None:
    size = 8 * dtype.itemsize
    tensor = patterns([0, 1, (1 << size) - 1, 1 << (size - 1), 5 << (size - 4)], dtype)
    original = tensor.clone()
    for index in range(5):
        for bit in range(size):
            change = flip_bit(tensor, index, bit)
            assert pattern_of(tensor[index]) ^ pattern_of(original[index]) == 1 << bit
            assert compare(tensor, original)[1:4:2] == (1, index)
            change.undo(tensor)
            assert digest(tensor) == digest(original)
    with pytest.raises(UsageError, match=f"bit {size} is out of range"):
        flip_bit(tensor, 0, size)


def test_a_bool_has_one_bit() -> None:
    tensor = torch.tensor([True, False])
    changes = [flip_bit(tensor, index, 0) for index in (0, 1)]
    assert tensor.tolist() == [False, True]
    assert [pattern_of(one) for one in tensor] == [0, 1]
    with pytest.raises(UsageError, match="bit 1 is out of range: bool has bit 0 alone"):
        flip_bit(tensor, 0, 1)
    for change in changes:
        change.undo(tensor)
    assert tensor.tolist() == [True, False]


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=dtype_name)
def test_integers_have_no_ulp(dtype: torch.dtype) -> None:
    tensor = torch.ones(3).to(dtype)
    with pytest.raises(UsageError, match=f"elements of dtype {dtype_name(dtype)} have no ulp"):
        step_ulp(tensor, 1, 1)
    assert bit_equal(tensor, torch.ones(3).to(dtype))


@every_dtype
def test_a_step_is_one_ulp_in_either_direction(dtype: torch.dtype) -> None:
    tensor = normal(50).to(dtype)
    original = tensor.clone()
    for index in range(50):
        for direction in (1, -1):
            change = step_ulp(tensor, index, direction)
            assert change.bit is None
            assert int(ulp_distance(tensor, original).sum()) == 1
            risen = tensor[index].double() > original[index].double()
            assert bool(risen) == (direction == 1)
            change.undo(tensor)
            assert bit_equal(tensor, original)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=dtype_name)
def test_steps_are_those_of_nextafter(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    values = [1.0, -1.0, 2.0, limits.tiny, -limits.tiny, limits.smallest_normal / 2, 1e30, -3e-30]
    for value in values:
        for direction in (1, -1):
            tensor = torch.tensor([value], dtype=dtype)
            expected = torch.nextafter(tensor, torch.tensor(direction * math.inf, dtype=dtype))
            step_ulp(tensor, 0, direction)
            assert bit_equal(tensor, expected)


@pytest.mark.parametrize("dtype", [*DTYPES[4:], *FNUZ, torch.float8_e8m0fnu], ids=dtype_name)
def test_steps_walk_over_all_8_bit_floats_in_the_order_of_their_values(dtype: torch.dtype) -> None:
    every = patterns(list(range(256)), dtype)
    numbers = [i for i in range(256) if not math.isnan(float(every[i].float()))]
    lowest = min(numbers, key=lambda i: float(every[i].float()))
    tensor = every[lowest : lowest + 1].clone()
    with pytest.raises(UsageError, match="there is no float beyond it"):
        step_ulp(tensor, 0, -1)
    walked = [float(tensor.float())]
    for _ in range(len(numbers) - 1):
        before = tensor.clone()
        step_ulp(tensor, 0, 1)
        assert int(ulp_distance(before, tensor)) == 1
        walked.append(float(tensor.float()))
    assert walked == sorted(walked)
    assert walked[-1] == (2.0**127 if dtype is torch.float8_e8m0fnu else -walked[0])
    assert len(walked) == len(numbers)
    with pytest.raises(UsageError, match="there is no float beyond it"):
        step_ulp(tensor, 0, 1)


@every_dtype
def test_zeros_are_two_floats(dtype: torch.dtype) -> None:
    sign = 1 << (8 * dtype.itemsize - 1)
    tensor = patterns([1, 0], dtype)
    for expected in (0, sign, sign + 1):
        step_ulp(tensor, 0, -1)
        assert pattern_of(tensor[0]) == expected
    for expected in (sign, 0, 1):
        step_ulp(tensor, 0, 1)
        assert pattern_of(tensor[0]) == expected


@every_dtype
def test_the_ends_of_the_range(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    tensor = torch.tensor([largest, -largest], dtype=torch.float64).to(dtype)
    if dtype is torch.float8_e4m3fn:  # has no infinity
        with pytest.raises(UsageError, match=r"index 0 is the largest float8_e4m3fn \(0x7e\)"):
            step_ulp(tensor, 0, 1)
        with pytest.raises(UsageError, match=r"index 1 is the smallest float8_e4m3fn \(0xfe\)"):
            step_ulp(tensor, 1, -1)
        return
    step_ulp(tensor, 0, 1)
    step_ulp(tensor, 1, -1)
    assert [float(v) for v in tensor] == [math.inf, -math.inf]
    with pytest.raises(UsageError, match="index 0 is the largest"):
        step_ulp(tensor, 0, 1)
    step_ulp(tensor, 0, -1)
    step_ulp(tensor, 1, 1)
    assert [float(v) for v in tensor] == [largest, -largest]


@every_dtype
def test_a_nan_has_no_neighbours_but_bits(dtype: torch.dtype) -> None:
    tensor = torch.full((2,), math.nan).to(dtype)
    before = tensor.clone()
    for direction in (1, -1):
        with pytest.raises(UsageError, match="index 1 is NaN"):
            step_ulp(tensor, 1, direction)
    assert bit_equal(tensor, before)
    flip_bit(tensor, 1, 0).undo(tensor)
    assert bit_equal(tensor, before)


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: normal(4, 6),
    "transposed": lambda: normal(6, 4).t(),
    "every second": lambda: normal(4, 12)[:, ::2],
    "offset": lambda: normal(5, 6)[1:],
    "leaf": lambda: normal(4, 6).requires_grad_(),
    "parameter": lambda: torch.nn.Parameter(normal(4, 6)),
    "transposed parameter": lambda: torch.nn.Parameter(normal(6, 4).t()),
}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("index", [13, (2, 1), [2, 1], torch.Size((2, 1))])
def test_layouts_and_indices(make: Callable[[], Tensor], index: int | list[int]) -> None:
    tensor = make()
    before = tensor.detach().clone()
    address = tensor.data_ptr()
    change = flip_bit(tensor, index, 3)
    assert change.index == 13
    found = compare(before, tensor)
    assert (found.different, found.first) == (1, 13)
    assert tensor.data_ptr() == address
    assert tensor.grad_fn is None
    change.undo(tensor)
    step_ulp(tensor, index, 1).undo(tensor)
    assert bit_equal(before, tensor)


def test_memory_beside_a_view_is_left_alone() -> None:
    base = normal(4, 12)
    before = base.clone()
    flip_bit(base[:, ::2], (1, 2), 0)
    found = compare(before, base)
    assert (found.different, found.first) == (1, 12 + 4)


def test_0d_tensors() -> None:
    for index in (0, ()):
        tensor = torch.tensor(1.0)
        assert flip_bit(tensor, index, 31).index == 0
        assert float(tensor) == -1.0


@settings(max_examples=100, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(1, 4), max_size=4),
    data=st.data(),
)
def test_undo_and_replay_of_anything(
    dtype: torch.dtype, shape: list[int], data: st.DataObject
) -> None:
    count = math.prod(shape)
    pattern = st.integers(0, 2 ** (8 * dtype.itemsize) - 1)
    values = data.draw(st.lists(pattern, min_size=count, max_size=count))
    tensor = patterns(values, dtype).reshape(shape)
    before = tensor.clone()
    index = data.draw(st.integers(0, count - 1))
    change = flip_bit(tensor, index, data.draw(st.integers(0, 8 * dtype.itemsize - 1)))
    after = tensor.clone()
    assert compare(before, after).different == 1
    assert compare(before, after).first == index
    change.undo(tensor)
    assert bit_equal(tensor, before)
    change.replay(tensor)
    assert bit_equal(tensor, after)


def test_training_goes_on_after_a_flip() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    flip_bit(weight, 1, 22)
    (weight * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert bit_equal(weight.grad, torch.tensor([1.0, 2.0, 3.0]))
    assert weight.tolist() == [1.0, 1.5, 1.0]


def test_autograd_notices_a_flip_of_a_saved_value() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    flip_bit(weight, 1, 0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_record_survives_json() -> None:
    tensor = normal(5)
    change = flip_bit(tensor, 2, 0, name="layer.weight")
    again = BitChange(**json.loads(json.dumps(dataclasses.asdict(change))))
    assert again == change
    again.undo(tensor)
    assert bit_equal(tensor, normal(5))


def test_undo_and_replay_check_what_they_find() -> None:
    tensor = normal(5)
    change = flip_bit(tensor, 2, 0, name="layer.weight")
    flipped = tensor.clone()
    with pytest.raises(
        UsageError, match=f"expected {change.before} at index 2 of layer.weight, found"
    ):
        change.replay(tensor)
    flip_bit(tensor, 2, 1)
    with pytest.raises(UsageError, match=f"expected {change.after} at index 2"):
        change.undo(tensor)
    with pytest.raises(UsageError, match="made in a float32 tensor, got float64"):
        change.undo(tensor.double())
    with pytest.raises(UsageError, match="index 2 is out of range"):
        change.undo(tensor[:2])
    flip_bit(tensor, 2, 1)
    assert bit_equal(tensor, flipped)


@every_dtype
def test_the_valid_bits_are_named(dtype: torch.dtype) -> None:
    tensor = normal(3).to(dtype)
    before = tensor.clone()
    width = 8 * dtype.itemsize
    for bit in (-1, width, 1000):
        with pytest.raises(
            UsageError,
            match=rf"bit {bit} is out of range: {dtype_name(dtype)} has bits 0 .* to {width - 1} ",
        ):
            flip_bit(tensor, 0, bit)
    assert bit_equal(tensor, before)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (12, r"index 12 is out of range for shape \(3, 4\): allowed are 0 to 11"),
        (-1, r"index -1 is out of range for shape \(3, 4\): allowed are 0 to 11"),
        ((1,), r"index \(1,\) is out of range for shape \(3, 4\): one number a dimension"),
        ((0, 4), r"index \(0, 4\) is out of range for shape \(3, 4\)"),
        ((-1, 0), r"index \(-1, 0\) is out of range"),
    ],
)
def test_the_valid_indices_are_named(index: int | tuple[int, ...], message: str) -> None:
    for call in (lambda t: flip_bit(t, index, 0), lambda t: step_ulp(t, index, 1)):
        with pytest.raises(UsageError, match=message):
            call(normal(3, 4))


def test_an_empty_tensor_has_no_index() -> None:
    with pytest.raises(UsageError, match="allowed are none, it is empty"):
        flip_bit(torch.zeros(0, 3), 0, 0)


def test_directions_are_named() -> None:
    for direction in (0, 2, -3):
        with pytest.raises(UsageError, match=r"direction must be \+1 \(up\) or -1 \(down\)"):
            step_ulp(normal(3), 0, direction)


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(3).cfloat(), "complex64 is not taken; bits can be changed in float64"),
        (lambda: torch.eye(3).to_sparse(), "only strided tensors"),
        (lambda: torch.zeros(3, device="meta"), "no meta device"),
        (lambda: torch.zeros(3, dtype=torch.complex64).conj().imag, "no lazily negated view"),
        (lambda: torch.zeros(3).as_subclass(Subclass), "got Subclass"),
        (lambda: [1.0], "got list"),
    ],
)
def test_other_tensors_are_refused(make: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        flip_bit(make(), 0, 0)
    with pytest.raises(TypeError, match=message):
        step_ulp(make(), 0, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1, 4).expand(3, 4),
        lambda: torch.zeros(()).expand(3),
        lambda: torch.zeros(20).unfold(0, 5, 2),
        lambda: torch.zeros(20).as_strided((3, 3), (1, 2)),
    ],
)
def test_elements_that_share_memory_are_refused(make: Callable[[], Tensor]) -> None:
    tensor = make()
    for call in (lambda: flip_bit(tensor, 0, 0), lambda: step_ulp(tensor, 0, 1)):
        with pytest.raises(UsageError, match="elements of this tensor share memory"):
            call()
    assert not tensor.any()


def test_meta_writing_into_an_expanded_tensor_would_change_several() -> None:
    tensor = torch.zeros(()).expand(3)
    tensor[0].view(torch.int32).fill_(1)
    assert int((tensor != 0).sum()) == 3


def test_dimensions_of_one_share_nothing() -> None:
    tensor = torch.zeros(4, 1).expand(4, 1)[:, :1].as_strided((4, 1), (1, 0))
    flip_bit(tensor, 2, 0)
    assert int((tensor != 0).sum()) == 1


def test_rng_and_grad_mode_are_left_alone() -> None:
    state = torch.get_rng_state()
    tensor = normal(4)
    change = flip_bit(tensor, 0, 0)
    change.undo(tensor)
    step_ulp(tensor, 0, 1)
    assert bit_equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
