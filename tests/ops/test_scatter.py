"""The scatter core under index_add, scatter_add, index_put and index: promises (the trio), hard
values, and the format of `ordered`."""

import os
import platform
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from cells import distinct
from generators import FAMILIES, bits_of, family, from_bits, normal, random_bits
from scattered import add, indices
from test_sum_float_mode import DOWN, LIBM, UP, ZERO, flushing, rounding
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import Guarantee, index_add, index_add_ref, index_put, scatter_add, variants
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits

DTYPES = list(FORMATS)
OPS = ["index_add", "scatter_add", "index_put", "index"]
VARIANTS = [variant.name for variant in variants("index_add")]
ORDERED = ["ordered", "fixed_point", "exact"]
ORDER_INVARIANT = ["fixed_point", "exact"]
CHUNK = 65536  # of the format of `ordered`


def patterns(x: Tensor) -> Tensor:
    """The bit patterns as signed integers: bits_of without a list."""
    return x.view(FORMATS[x.dtype].integers)


def wide(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """N(0, 1) times powers of two, so that sums feel their order in every dtype."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp2(rng.integers(-8, 8, shape))
    return torch.from_numpy(values).to(dtype)


# (destinations, columns or none, n): cells and rows, few and many of both, chunks and their edges,
# enough for several threads.
SHAPES = [
    (1, (), 5000),
    (5, (), 3 * CHUNK + 17),
    (270_000, (), 40_000),
    (9, (3,), 20_000),
    (30, (40,), 2000),
    (4, (300,), 300),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ordered_variants_are_bit_identical(
    shape: tuple[int, tuple[int, ...], int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over runs, threads 1 to 8 and instruction sets; each value of a factor once a shape."""
    destinations, columns, n = shape
    out, source = wide((destinations, *columns), dtype, 1), wide((n, *columns), dtype, 2)
    index = indices(n, destinations)
    for variant in ORDERED:
        expected = patterns(add(out, index, source, variant))
        for isa in _C.available_isas():
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            threads = 1 if isa in ("avx512", "sse2") else 2
            again = patterns(add(out, index, source, variant, threads))
            assert torch.equal(again, expected), (variant, isa)
        monkeypatch.delenv("NONDET_PROBE_ISA")
        for threads in (2, 2, 3, 8) if destinations > 1000 else (2, 3, 4, 5, 6, 7, 8):
            again = patterns(add(out, index, source, variant, threads))
            assert torch.equal(again, expected), (variant, threads)


# ---- bounds


def rounding_error(addends: Tensor, u: Fraction) -> Fraction:
    magnitudes = exact_sum(addends.abs())
    assert isinstance(magnitudes, Fraction)
    return ((1 + u) ** addends.numel() - 1) * magnitudes


def place(bits: int, dtype: torch.dtype) -> int:
    """Bit patterns in the order of the numbers."""
    sign = FORMATS[dtype].sign
    return -(bits & ~sign) if bits & sign else bits


def bound_of(variant: str, addends: Tensor, n: int, largest: float) -> Fraction:
    """The bounds of registry.Variant.error_bound, before the rounding to the dtype."""
    own = Fraction(2) ** -FORMATS[addends.dtype].precision
    if variant == "atomic":
        return rounding_error(addends, own)
    if variant == "ordered":
        return rounding_error(addends, min(own, Fraction(2) ** -24))
    if variant == "fixed_point":
        e = Fraction(largest).numerator.bit_length() - Fraction(largest).denominator.bit_length()
        e += Fraction(largest) >= Fraction(2) ** e
        s = min(62 - (n + 1).bit_length() - e, 1074)
        return addends.numel() * Fraction(2) ** (-s - 1)
    return Fraction(0)


def misses(variant: str, out: Tensor, index: Tensor, source: Tensor, result: Tensor) -> list[int]:
    """The destinations whose result lies outside of the bound."""
    found = []
    largest = max(out.abs().max().item(), source.abs().max().item())
    for d, bits in enumerate(bits_of(result)):
        addends = torch.cat([out[d : d + 1], source[index == d]])
        bound, exact = bound_of(variant, addends, index.numel(), largest), exact_sum(addends)
        if isinstance(exact, float):
            exact = Fraction(exact)
        low, high = (round_to_bits(exact + by, out.dtype) for by in (-bound, bound))
        if not place(low, out.dtype) <= place(bits, out.dtype) <= place(high, out.dtype):
            found.append(d)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    for destinations, n in ((1, 300), (7, 1000), (50, 120)):
        for source in (wide((n,), dtype, n), wide((n,), dtype, n).abs()):
            out, index = wide((destinations,), dtype, 3), indices(n, destinations)
            result = add(out, index, source, variant, 2)
            assert misses(variant, out, index, source, result) == [], (destinations, n)


def test_the_check_of_bounds_can_fail() -> None:
    out, index, source = torch.ones(3), indices(200, 3), wide((200,), torch.float32, 4)
    for variant in VARIANTS:
        result = add(out, index, source, variant)
        beyond = from_bits([bits_of(result)[0] + 5000, *bits_of(result)[1:]], torch.float32)
        assert misses(variant, out, index, source, beyond) == [0]


def many(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    n = 1_000_000  # long enough to meet the other thread on a busy machine too
    return torch.zeros(2, dtype=dtype), indices(n, 2), normal(n, dtype, 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_is_seen_to_vary(dtype: torch.dtype) -> None:
    out, index, source = many(dtype)
    assert distinct(lambda: add(out, index, source, "atomic", 2), 2, 2000) == 2, (
        f"2000 atomic sums on 2 threads gave the same bits; this process may run on "
        f"{len(os.sched_getaffinity(0))} processors"
    )


def test_atomic_on_one_thread_does_not_vary() -> None:
    out, index, source = many(torch.float32)
    assert distinct(lambda: add(out, index, source, "atomic", 1), 2, 10) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDER_INVARIANT)
def test_any_order_is_the_same(variant: str, dtype: torch.dtype) -> None:
    n = 1500
    for columns in ((), (5,)):
        out, source = wide((6, *columns), dtype, 6), wide((n, *columns), dtype, 7)
        index = indices(n, 6)
        key = source.reshape(n, -1)[:, 0]
        orders = [torch.arange(n).flip(0), key.argsort(), key.abs().argsort(), index.argsort()]
        orders += [torch.randperm(n, generator=torch.Generator().manual_seed(i)) for i in range(20)]

        def of(order: Tensor, v: str) -> tuple[int, ...]:
            return tuple(bits_of(add(out, index[order], source[order], v)))  # noqa: B023

        assert len({of(order, variant) for order in orders}) == 1
        if dtype is torch.float32:  # the same orders do tell on sums that depend on them
            assert len({of(order, "ordered") for order in orders}) > 1


# ---- the format of `ordered`


def ordered_by_format(out: Tensor, index: Tensor, source: Tensor) -> Tensor:
    """docs/ops/scatter.md spelled out in numpy, for one column."""
    kind = np.float64 if out.dtype is torch.float64 else np.float32
    to = torch.float64 if out.dtype is torch.float64 else torch.float32
    destinations = out.numel()
    length = CHUNK * max(-(-2 * destinations // CHUNK), 1)
    sums = out.to(to).numpy().copy()
    for first in range(0, index.numel(), length):
        table = sums if first == 0 else np.full(destinations, -0.0, dtype=kind)
        # Unbuffered: one addition after the other.
        part = slice(first, first + length)
        np.add.at(table, index[part].numpy(), source[part].to(to).numpy())
        if first > 0:
            sums = sums + table
    return torch.from_numpy(sums).to(out.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ordered_keeps_its_format(dtype: torch.dtype) -> None:
    """With duplicates on both sides of the edges of chunks, and chunks made longer by many
    destinations."""
    for destinations, n in ((3, CHUNK), (3, CHUNK + 1), (3, 3 * CHUNK), (50_000, 400_000)):
        out, source = wide((destinations,), dtype, 8), wide((n,), dtype, 9)
        index = indices(n, destinations)
        index[CHUNK - 2 : CHUNK + 2] = 1
        expected = bits_of(ordered_by_format(out, index, source))
        for threads in (1, 2):
            assert bits_of(add(out, index, source, "ordered", threads)) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ordered_is_torch_on_one_thread(dtype: torch.dtype) -> None:
    """Rows always, single elements within one chunk."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for columns, n in (((), CHUNK), ((2,), CHUNK + 100), ((33,), 3000)):
            out, source = wide((11, *columns), dtype, 1), wide((n, *columns), dtype, 2)
            index = indices(n, 11)
            expected = bits_of(out.index_add(0, index, source))
            assert bits_of(add(out, index, source, "ordered", 2)) == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_sums_are_rounded_once(dtype: torch.dtype) -> None:
    """300 is not to be had in bfloat16's 8 bits one by one."""
    for columns in ((), (4,)):
        out, source = torch.zeros(1, *columns, dtype=dtype), torch.ones(300, *columns, dtype=dtype)
        for variant in ORDERED:
            result = add(out, torch.zeros(300, dtype=torch.int64), source, variant)
            assert (result == 300).all()


# ---- hard values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_on_hard_values(name: str, dtype: torch.dtype) -> None:
    """Each family's tensors side by side in destinations of their own, once as cells, once as rows
    of two columns, in and out of order."""
    vectors = [torch.empty(0, dtype=dtype), *(x[:500] for x in family(name, dtype)[:40])]
    source = torch.cat(vectors)
    index = torch.cat([torch.full((x.numel(),), d) for d, x in enumerate(vectors)])
    out = torch.full((len(vectors),), -0.0, dtype=dtype)
    expected = [round_to_bits(exact_sum(torch.cat([out[:1], x])), dtype) for x in vectors]
    assert bits_of(add(out, index, source, "exact")) == expected
    order = torch.randperm(source.numel(), generator=torch.Generator().manual_seed(1))
    # Threads take 16,384 elements each at least: padded with what changes nothing.
    padding = torch.full((33_000,), -0.0, dtype=dtype)
    padded, to = torch.cat([source[order], padding]), torch.arange(33_000) % len(vectors)
    assert bits_of(add(out, torch.cat([index[order], to]), padded, "exact", 2)) == expected
    rows = torch.stack([source[order], -source[order]], 1)
    both = add(torch.stack([out, out], 1), index[order], rows, "exact", 2)
    assert bits_of(both[:, 0]) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [(), (2,)], ids=["cells", "rows"])
def test_exact_on_random_bits(columns: tuple[int, ...], dtype: torch.dtype) -> None:
    """Exponents all over the format, so that every way of adding exactly is taken."""
    rng = np.random.default_rng(12)
    form = FORMATS[dtype]
    top = (form.infinity >> form.fraction_bits) - 1
    n = 1200
    for low, high in ((0, top), (0, 3), (top // 2 - 20, top // 2 + 20), (top - 3, top)):
        low = max(low, 0)
        source = random_bits(n, dtype, rng, low, min(high, top)).reshape(n // 2, 2)
        source = source if columns else source.reshape(-1)
        out = random_bits(14, dtype, rng, low, min(high, top)).reshape(7, 2)
        out = out if columns else out.reshape(-1)
        index = indices(source.shape[0], out.shape[0])
        expected = bits_of(index_add_ref(out, 0, index, source))
        assert bits_of(add(out, index, source, "exact")) == expected


def of_one_cell(values: list[float], dtype: torch.dtype, variant: str, columns: int) -> int:
    """The sum of values, the first of them the initial one."""
    x = torch.tensor(values, dtype=dtype).unsqueeze(1).expand(-1, columns)
    index = torch.zeros(len(values) - 1, dtype=torch.int64)
    result = bits_of(add(x[:1], index, x[1:], variant))
    assert len(set(result)) == 1
    return result[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("columns", [1, 3])
def test_specials_and_zeros(variant: str, columns: int, dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    inf, nan = float("inf"), float("nan")
    for values, expected in (
        ([0.0, inf, 1.0], form.infinity),
        ([1.0, 2.0, -inf], form.infinity | form.sign),
        ([inf, 1.0, -inf], form.quiet_nan),
        ([0.0, -inf, 1.0, inf, 2.0], form.quiet_nan),
        ([nan, 1.0], form.quiet_nan),
        ([1.0, -nan, inf], form.quiet_nan),
        ([-nan], form.quiet_nan),
        ([-0.0, -0.0, -0.0], form.sign),
        ([-0.0], form.sign),
        ([0.0, -0.0], 0),
        ([-0.0, 0.0], 0),
        ([-0.0, 1.0, -1.0], 0),
        ([1.0, -1.0], 0),
    ):
        assert of_one_cell(values, dtype, variant, columns) == expected, values


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_final_result_overflows(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    form = FORMATS[dtype]
    for columns, variant in product((1, 3), ORDER_INVARIANT):
        back = of_one_cell([most, most, most, -most, -most], dtype, variant, columns)
        assert back == form.infinity - 1
        assert of_one_cell([most, most], dtype, variant, columns) == form.infinity


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [(), (3,)], ids=["cells", "rows"])
def test_no_mode_changes_a_bit(columns: tuple[int, ...], dtype: torch.dtype) -> None:
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("the modes are set as on x86")
    subnormal = random_bits(40_000 * 3, dtype, np.random.default_rng(1), 0, 1)
    for source in (subnormal, wide((40_000 * 3,), dtype, 2)):
        rows = source.reshape(-1, 3) if columns else source
        out, index = rows[:5].clone(), indices(rows.shape[0], 5)

        def results() -> list[list[int]]:
            return [bits_of(add(out, index, rows, v, t)) for v in ORDERED for t in (1, 2)]  # noqa: B023

        expected = results()
        with flushing():
            flushed = results()
        assert flushed == expected
        for mode in (DOWN, UP, ZERO):
            with rounding(mode):
                moved = results()
                left = LIBM.fegetround()
            assert moved == expected, hex(mode)
            assert left == mode


# ---- what the ops say of themselves


def test_every_op_has_the_same_variants() -> None:
    guarantees = {
        "atomic": Guarantee.NONE,
        "ordered": Guarantee.LAUNCH_INVARIANT,
        "fixed_point": Guarantee.ORDER_INVARIANT,
        "exact": Guarantee.CORRECTLY_ROUNDED,
    }
    for op in OPS:
        assert {v.name: v.guarantee for v in variants(op)} == guarantees
        assert all(v.dtypes == tuple(DTYPES) for v in variants(op))


def test_threads_default_to_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []

    class Recorder:
        @staticmethod
        def scatter(*given: object) -> int:
            taken.append(given[8])
            return -1

    monkeypatch.setattr("nondet_probe.ops.via_c.scatter._C", Recorder)
    x, i = torch.ones(3), torch.tensor([0, 1, 1])
    index_add(x, 0, i, x)
    scatter_add(x, 0, i, x, threads=5)
    index_put(x, (i,), x, threads=7)
    assert taken == [torch.get_num_threads(), 5, 7]


def test_fixed_point_of_the_smallest_numbers_is_exact() -> None:
    """Their unit is that of float64 itself: below it there are no digits to add to."""
    tiny = from_bits([5, 2 | FORMATS[torch.float64].sign, 1, 3], torch.float64)
    index, zeros = torch.tensor([0, 0, 1, 0]), torch.zeros(2, dtype=torch.float64)
    for variant in ("exact", "fixed_point"):
        assert bits_of(scatter_add(zeros, 0, index, tiny, variant=variant)) == [6, 1]
