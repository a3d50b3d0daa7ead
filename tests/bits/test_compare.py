from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from digest_by_document import raw_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits import (
    ULP_BUCKETS,
    ULP_MAX,
    Comparison,
    bit_equal,
    compare,
    count_different,
    digest,
    ulp_distance,
    via_c,
)
from nondet_probe.bits.dtypes import CODES, FLOATING, REAL_OF, dtype_name

REAL_FLOATING = [dtype for dtype in CODES if dtype in FLOATING and dtype not in REAL_OF]
FNUZ = (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
CHUNK = 16384


def patterns(values: list[int], dtype: torch.dtype) -> Tensor:
    """A tensor of the given bit patterns."""
    data = b"".join(value.to_bytes(dtype.itemsize, "little") for value in values)
    return torch.tensor(list(data), dtype=torch.uint8).view(dtype)


def noise(count: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    high = 2 if dtype is torch.bool else 256
    data = torch.randint(0, high, (count * dtype.itemsize,), generator=source)
    return data.to(torch.uint8).view(dtype)


def clone(tensor: Tensor) -> Tensor:
    """A copy; torch warns when it makes complex32 itself."""
    return tensor.view(torch.uint8).clone().view(tensor.dtype)


def nearby(tensor: Tensor, seed: int = 1) -> Tensor:
    """A copy in which about half of the elements got another last byte."""
    source = torch.Generator().manual_seed(seed)
    changed = clone(tensor).view(torch.uint8).reshape(-1, tensor.dtype.itemsize)
    high = 2 if tensor.dtype is torch.bool else 256
    which = torch.randint(0, 2, (len(changed),), generator=source).bool()
    changed[which, 0] = torch.randint(0, high, (int(which.sum()),), generator=source).byte()
    return changed.reshape(-1).view(tensor.dtype)


# ---- an independent reference, in Python's numbers ----------------------------------------------


def bits_of(tensor: Tensor) -> list[int]:
    data, size = raw_bytes(tensor), tensor.dtype.itemsize
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def place_of(pattern: int, dtype: torch.dtype) -> int:
    """Number of the pattern in the order of the values, 0 for 0.0."""
    if dtype is torch.float8_e8m0fnu:
        return pattern
    sign = 1 << (8 * dtype.itemsize - 1)
    if pattern < sign:
        return pattern
    return sign - pattern if dtype in FNUZ else sign - pattern - 1


def values_of(tensor: Tensor) -> list[float]:
    """Every element as torch itself converts it to float64."""
    wide = (
        tensor.float() if tensor.dtype.itemsize == 1 and tensor.dtype.is_floating_point else tensor
    )
    return [float(v) for v in wide.to(torch.float64).tolist()]


def ulps(a: Tensor, b: Tensor) -> list[int]:
    nan_a = [math.isnan(v) for v in values_of(a)]
    nan_b = [math.isnan(v) for v in values_of(b)]
    found = []
    for x, y, nan in zip(
        bits_of(a), bits_of(b), [p or q for p, q in zip(nan_a, nan_b, strict=True)], strict=True
    ):
        distance = abs(place_of(x, a.dtype) - place_of(y, b.dtype))
        found.append(0 if x == y else ULP_MAX if nan else min(distance, ULP_MAX))
    return found


def buckets(distances: list[int]) -> tuple[int, ...]:
    """Distances counted by their number of binary digits; the last bucket is for ULP_MAX."""
    found = [0] * ULP_BUCKETS
    for distance in distances:
        found[-1 if distance == ULP_MAX else distance.bit_length()] += 1
    return tuple(found)


def ordered_sum(terms: list[float]) -> float:
    """In the order that csrc/compare.hpp promises."""
    total = 0.0
    for start in range(0, len(terms), CHUNK):
        v = [0.0] * 8
        for i, term in enumerate(terms[start : start + CHUNK]):
            v[i % 8] += term
        total += ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    return total


def reference(a: Tensor, b: Tensor) -> Comparison:
    if a.dtype in REAL_OF:
        halves = reference(a.view(REAL_OF[a.dtype]), b.view(REAL_OF[a.dtype]))
    else:
        values_a, values_b = values_of(a), values_of(b)
        same = [x == y for x, y in zip(bits_of(a), bits_of(b), strict=True)]
        gaps = [
            0.0 if equal else x - y for x, y, equal in zip(values_a, values_b, same, strict=True)
        ]
        halves = Comparison(
            a.numel(),
            0,
            max(ulps(a, b), default=0) if a.dtype in FLOATING else None,
            None,
            ordered_sum([gap * gap for gap in gaps]),
            ordered_sum([x * x for x in values_a]),
            ordered_sum([y * y for y in values_b]),
            ordered_sum([x * y for x, y in zip(values_a, values_b, strict=True)]),
            buckets(ulps(a, b)) if a.dtype in FLOATING else None,
        )
    differs = [i for i, (x, y) in enumerate(zip(bits_of(a), bits_of(b), strict=True)) if x != y]
    return halves._replace(
        elements=a.numel(), different=len(differs), first=differs[0] if differs else None
    )


def same(found: Comparison, expected: Comparison) -> bool:
    """Equal to the last bit; a NaN equals a NaN."""
    return repr(found) == repr(expected)


# ---- compare ------------------------------------------------------------------------------------

COUNTS = [0, 1, 7, 8, 9, 16, 257]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", list(CODES), ids=dtype_name)
def test_every_dtype_is_as_the_reference_says(dtype: torch.dtype, count: int) -> None:
    a = noise(count, dtype)
    for b in (clone(a), nearby(a), noise(count, dtype, seed=2)):
        assert same(compare(a, b), reference(a, b))
        assert count_different(a, b) == reference(a, b).different
        assert bit_equal(a, b) == (reference(a, b).different == 0)


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("dtype", list(CODES), ids=dtype_name)
def test_instruction_set_and_threads_do_not_enter(dtype: torch.dtype, isa: str) -> None:
    # Finite numbers of many sizes, so that another order of addition would show.
    count = 3 * CHUNK + 5
    source = torch.Generator().manual_seed(5)
    spread = torch.randn(count, generator=source).double() * torch.exp2(
        torch.randint(-12, 12, (count,), generator=source)
    )
    real = REAL_OF.get(dtype, dtype)
    if dtype is torch.float8_e8m0fnu:
        a = noise(count, dtype)
    else:
        a = (spread > 0 if dtype is torch.bool else spread.to(real)).repeat(
            2 if dtype in REAL_OF else 1
        )
    a = a.view(dtype)
    b = nearby(a)
    code = CODES[dtype]
    expected = via_c.compare(code, a, b, 1, "portable")
    for threads in range(1, 9):
        assert repr(via_c.compare(code, a, b, threads, isa)) == repr(expected)
    if dtype in REAL_FLOATING:
        assert bit_equal(via_c.ulp_distance(code, a, b, isa), ulp_distance(a, b))


def test_sums_over_several_chunks_are_in_the_promised_order() -> None:
    a = torch.randn(2 * CHUNK + 11, generator=torch.Generator().manual_seed(1))
    b = a + torch.randn(len(a), generator=torch.Generator().manual_seed(2)) / 1000
    assert same(compare(a, b), reference(a, b))
    assert same(compare(a, b, threads=3), reference(a, b))


def test_meta_another_order_of_addition_would_show() -> None:
    a = torch.randn(2 * CHUNK + 11, generator=torch.Generator().manual_seed(1))
    assert compare(a, a).sum_squares != sum(x * x for x in values_of(a))


@pytest.mark.parametrize("place", [0, 1, 8, 9, CHUNK - 1, CHUNK, 2 * CHUNK + 6])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_one_changed_element_is_found(place: int, threads: int) -> None:
    a = torch.ones(2 * CHUNK + 7)
    b = a.clone()
    b[place] = 1.5
    found = compare(a, b, threads=threads)
    n = float(len(a))
    apart = buckets([2**22] + [0] * (len(a) - 1))
    assert found == Comparison(len(a), 1, 2**22, place, 0.25, n, n + 1.25, n + 0.5, apart)


def test_whole_numbers_have_no_ulp() -> None:
    a = torch.tensor([1, 2, 3, -4])
    b = torch.tensor([1, 2, 5, -4])
    assert compare(a, b) == Comparison(4, 1, None, 2, 4.0, 30.0, 46.0, 36.0, None)


def test_complex_elements_count_once_and_ulps_are_of_halves() -> None:
    a = torch.tensor([1 + 2j, 3 - 4j])
    b = torch.tensor([1 + 2j, 5 - 8j])
    found = compare(a, b)
    assert (found.elements, found.different, found.first) == (2, 1, 1)
    assert found.max_ulp == 2**23
    assert (found.sum_squares_difference, found.sum_squares) == (20.0, 30.0)
    assert (found.sum_squares_other, found.dot) == (94.0, 52.0)
    assert found.ulps == buckets([0, 0, 2**22 + 2**21, 2**23])
    assert ulp_distance(a, b).tolist() == [[0, 0], [2**22 + 2**21, 2**23]]


def test_equal_nan_and_infinity_add_nothing_to_the_difference() -> None:
    a = torch.tensor([math.nan, math.inf, 3.0])
    b = torch.tensor([math.nan, math.inf, 5.0])
    found = compare(a, b)
    assert (found.different, found.first, found.sum_squares_difference) == (1, 2, 4.0)
    assert math.isnan(found.sum_squares)


@pytest.mark.parametrize("threads", [1, 3])
def test_flushing_of_subnormals_does_not_enter(threads: int) -> None:
    a = patterns([1, 5, 0x00400000, 0x80000003], torch.float32).repeat(CHUNK)
    b = patterns([2, 5, 0x00400001, 0x80000004], torch.float32).repeat(CHUNK)
    expected = compare(a, b, threads=threads)
    assert expected.sum_squares_difference > 0.0
    assert torch.set_flush_denormal(True)
    try:
        found = compare(a, b, threads=threads)
        assert float(torch.tensor([2.0**-149]) * 2.0) == 0.0  # the switch is on, and still is
    finally:
        torch.set_flush_denormal(False)
    assert same(found, expected)


def test_padding_adds_nothing_where_no_pattern_is_zero() -> None:
    tiny = patterns([0], torch.float8_e8m0fnu)  # 2^-127
    assert compare(tiny, tiny).sum_squares == 2.0**-254


def test_every_power_of_two_has_its_bucket() -> None:
    for dtype, top in ((torch.float32, 32), (torch.float64, 63)):
        # From the most negative number on: distances up to twice the largest finite one's place.
        ends = [2**k + d for k in range(top - 1) for d in (-1, 0, 1)]
        lowest = 2 ** (8 * dtype.itemsize - 1)
        a = patterns([lowest] * len(ends), dtype)
        b = patterns(ends, dtype)
        found = compare(a, b)
        assert found.ulps == buckets(ulps(a, b))
        assert sum(found.ulps) == len(ends)


def test_the_distance_that_stands_for_those_that_cannot_be_counted() -> None:
    # From a negative number of place -p to one of place 2^63 - 1 - p, and one float to each side.
    p = 2**62
    a = patterns([2**63 + p - 1] * 3, torch.float64)
    b = patterns([2**63 - 1 - p - 1, 2**63 - 1 - p, 2**63 - p], torch.float64)
    assert [place_of(x, a.dtype) for x in bits_of(a)] == [-p] * 3
    found = compare(a, b)
    assert ulp_distance(a, b).tolist() == [2**63 - 2, ULP_MAX, ULP_MAX]
    assert found.max_ulp == ULP_MAX
    assert (found.ulps[63], found.ulps[64]) == (1, 2)


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=dtype_name)
def test_a_whole_chunk_at_one_distance_is_counted(isa: str, dtype: torch.dtype) -> None:
    # The most that the digits of the counts must hold, and a chunk that is cut short.
    for count in (CHUNK, CHUNK + 100):
        a = torch.full((count,), 1.0, dtype=dtype)
        b = torch.full((count,), 1.5, dtype=dtype)
        apart = int(ulp_distance(a, b)[0])
        expected = buckets([apart] * count)
        assert via_c.compare(CODES[dtype], a, b, 1, isa)[-1] == expected


# ---- ulps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [d for d in REAL_FLOATING if d.itemsize == 1], ids=dtype_name)
def test_all_pairs_of_8_bit_floats(dtype: torch.dtype) -> None:
    a = patterns([i for i in range(256) for _ in range(256)], dtype)
    b = patterns(list(range(256)) * 256, dtype)
    assert ulp_distance(a, b).tolist() == ulps(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=dtype_name)
def test_all_16_bit_floats_against_a_few(dtype: torch.dtype) -> None:
    every = patterns(list(range(65536)), dtype)
    for other in (0x3C00, 0x8001, 0x7F81):
        b = patterns([other] * 65536, dtype)
        assert ulp_distance(every, b).tolist() == ulps(every, b)
        found = compare(every, b)
        assert found.different == 65535
    # Piece by piece, so that no value drowns in larger ones.
    finite = every[every.isfinite()]
    for piece in finite.split(64):
        expected = ordered_sum([x * x for x in values_of(piece)])
        assert compare(piece, piece).sum_squares == expected


@pytest.mark.parametrize(
    "dtype",
    [dtype for dtype in REAL_FLOATING if dtype is not torch.float8_e8m0fnu],  # no zero, no sign
    ids=dtype_name,
)
def test_neighbours_are_one_apart_and_zero_means_equal_bits(dtype: torch.dtype) -> None:
    sign = 1 << (8 * dtype.itemsize - 1)
    zero, smallest, minus_smallest = patterns([0, 1, sign + 1], dtype)
    assert int(ulp_distance(zero, smallest)) == 1
    if dtype in FNUZ:
        assert int(ulp_distance(minus_smallest, smallest)) == 2
    else:
        minus_zero = patterns([sign], dtype)[0]
        assert int(ulp_distance(minus_zero, zero)) == 1
        assert int(ulp_distance(minus_smallest, minus_zero)) == 1
        assert int(ulp_distance(minus_smallest, smallest)) == 3


def test_float64_saturates_and_infinity_is_next_to_the_largest() -> None:
    largest = torch.finfo(torch.float64).max
    a = torch.tensor([-largest, largest, -math.inf, 1.0, math.nan], dtype=torch.float64)
    b = torch.tensor([largest, math.inf, math.inf, math.nan, math.nan], dtype=torch.float64)
    assert ulp_distance(a, b).tolist() == [ULP_MAX, 1, ULP_MAX, ULP_MAX, 0]
    assert compare(a, b).max_ulp == ULP_MAX


def test_nan_payloads() -> None:
    a = patterns([0x7FC00000, 0x7FC00000], torch.float32)
    b = patterns([0x7FC00000, 0x7FC00001], torch.float32)
    assert ulp_distance(a, b).tolist() == [0, ULP_MAX]
    assert bit_equal(a[:1], b[:1])
    assert not bit_equal(a, b)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(list(CODES)))
def test_any_pair(data: st.DataObject, dtype: torch.dtype) -> None:
    pattern = st.integers(0, 1 if dtype is torch.bool else 2 ** (8 * dtype.itemsize) - 1)
    pairs = data.draw(st.lists(st.tuples(pattern, pattern) | pattern.map(lambda p: (p, p))))
    a = patterns([x for x, _ in pairs], dtype)
    b = patterns([y for _, y in pairs], dtype)
    assert same(compare(a, b), reference(a, b))
    if dtype in REAL_FLOATING:
        assert ulp_distance(a, b).tolist() == ulps(a, b)
        assert (ulp_distance(a, b) == 0).tolist() == [x == y for x, y in pairs]


# ---- equality -----------------------------------------------------------------------------------


def test_equality_is_of_bits_dtype_and_shape() -> None:
    zero, minus_zero = torch.tensor([0.0]), torch.tensor([-0.0])
    nan = torch.tensor([math.nan])
    assert bit_equal(nan, nan.clone())
    assert not bit_equal(zero, minus_zero)
    assert not bit_equal(zero, zero.double())
    assert not bit_equal(zero, zero.view(torch.int32))
    assert not bit_equal(torch.zeros(2, 3), torch.zeros(3, 2))
    assert bit_equal(torch.zeros(0, 3), torch.zeros(0, 3))
    assert not bit_equal(torch.zeros(0, 3), torch.zeros(3, 0))


def test_meta_torch_equal_answers_otherwise() -> None:
    assert torch.equal(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not torch.equal(torch.tensor([math.nan]), torch.tensor([math.nan]))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.reshape(20, 30).t(),
    "every second": lambda t: t[::2],
    "expanded": lambda t: t[:1].expand(9),
    "channels_last": lambda t: t.reshape(2, 3, 10, 10).to(memory_format=torch.channels_last),
    "conj": lambda t: t.to(torch.complex64).conj(),
    "negated lazily": lambda t: torch.complex(t, t).conj().imag,
    "requires grad": lambda t: t.clone().requires_grad_().reshape(20, 30).t(),
    "parameter": lambda t: torch.nn.Parameter(t.clone()),
}


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS.keys())
def test_any_layout(make: Callable[[Tensor], Tensor]) -> None:
    view = make(torch.randn(600, generator=torch.Generator().manual_seed(3)))
    copy = view.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    assert bit_equal(view, copy)
    assert bit_equal(copy, view)
    assert same(compare(view, copy), compare(copy, copy))
    copy.view(-1)[5:6].view(torch.uint8)[0] ^= 1
    assert not bit_equal(view, copy)
    assert count_different(view, copy) == 1
    assert compare(view, copy).first == 5
    assert int((ulp_distance(view, copy) != 0).sum()) == 1


# ---- what it refuses and leaves alone -----------------------------------------------------------


def test_different_dtypes_and_shapes_are_named() -> None:
    for call in (compare, count_different, ulp_distance):
        with pytest.raises(ValueError, match=r"got float32 \(3,\) and float64 \(3,\)"):
            call(torch.zeros(3), torch.zeros(3, dtype=torch.float64))
        with pytest.raises(ValueError, match=r"got float32 \(3,\) and float32 \(4,\)"):
            call(torch.zeros(3), torch.zeros(4))


def test_tensors_without_plain_bits_are_refused_on_either_side() -> None:
    plain, sparse = torch.eye(3), torch.eye(3).to_sparse()
    for call in (compare, count_different, ulp_distance, bit_equal):
        with pytest.raises(TypeError, match=r"layout torch\.sparse_coo is not taken"):
            call(plain, sparse)
        with pytest.raises(TypeError, match=r"layout torch\.sparse_coo is not taken"):
            call(sparse, plain)
        with pytest.raises(TypeError, match="meta device"):
            call(plain, torch.empty(3, 3, device="meta"))


def test_no_ulp_between_integers() -> None:
    with pytest.raises(TypeError, match=r"dtype int64 has no ulp; those that have: bfloat16, .*"):
        ulp_distance(torch.arange(3), torch.arange(3))


def test_threads_must_be_positive() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got -2"):
        compare(torch.ones(3), torch.ones(3), threads=-2)


@contextmanager
def unchanged(*tensors: Tensor) -> Iterator[None]:
    def state() -> list[object]:
        each = [(raw_bytes(t), t._version, t.stride(), t.requires_grad) for t in tensors]
        return [each, torch.get_rng_state().tolist(), torch.is_grad_enabled()]

    before = state()
    yield
    assert state() == before


def test_nothing_is_changed_by_looking() -> None:
    a = torch.randn(20, 30, generator=torch.Generator().manual_seed(1)).requires_grad_()
    b = a.detach().t().clone().t()
    with unchanged(a, b):
        compare(a, b)
        bit_equal(a, b)
        count_different(a, b)
        ulp_distance(a, b)


def test_meta_a_change_would_be_noticed() -> None:
    a = torch.zeros(3)

    def touch() -> None:
        with unchanged(a):
            a.add_(0)

    with pytest.raises(AssertionError):
        touch()


@pytest.mark.parametrize("question", [bit_equal, count_different, compare, ulp_distance])
def test_a_tensor_without_memory_is_refused(question: Any) -> None:
    """Reading it would end the process: zeros of autograd's own, and storage taken away."""
    freed = torch.zeros(3)
    freed.untyped_storage().resize_(0)
    shrunk = torch.zeros(1000)
    turned = shrunk.view(10, 100).t()
    shrunk.untyped_storage().resize_(8)
    for bare in (torch._efficientzerotensor(3), freed, shrunk, turned):
        whole = torch.zeros(bare.shape)
        for pair in ((bare, whole), (whole, bare)):
            with pytest.raises(TypeError, match="no memory behind it, or not enough"):
                question(*pair)


def test_digest_refuses_a_tensor_without_memory() -> None:
    shrunk = torch.zeros(1000)
    shrunk.untyped_storage().resize_(8)
    for bare in (torch._efficientzerotensor(3), shrunk):
        with pytest.raises(TypeError, match="no memory behind it"):
            digest(bare)


def test_distances_do_not_depend_on_the_default_device() -> None:
    x = torch.arange(3.0)
    with torch.device("meta"):
        found = ulp_distance(x, x)
    assert found.tolist() == [0, 0, 0]
