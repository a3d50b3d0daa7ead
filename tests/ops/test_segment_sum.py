"""segment_sum: promises (the trio), values that sums go wrong on, refusals, torch's dispatcher."""

import platform
from fractions import Fraction

import pytest
import torch
from cells import changed_modes, check_operator, distinct, rounding_errors, within
from generators import FAMILIES, bits_of, family, from_bits, normal
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, segment_sum, segment_sum_ref, sum_ref, variants
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops.rational import FORMATS

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("segment_sum")]
ORDERED = [v.name for v in variants("segment_sum") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]
# Around lanes, chunks and rounds of neighbours; several empty, also first and last.
LENGTHS = [
    0,
    1,
    2,
    3,
    0,
    0,
    31,
    32,
    33,
    63,
    64,
    65,
    100,
    4095,
    4096,
    4097,
    8192,
    12289,
    20500,
    7,
    0,
]
COLUMNS = [(), (3,), (2, 70)]


def many(dtype: torch.dtype, columns: tuple[int, ...], seed: int = 1) -> tuple[Tensor, Tensor]:
    """Rows for `LENGTHS`, enough of them for eight threads, and the lengths."""
    lengths = LENGTHS * (1 + (5 << 20) // (sum(LENGTHS) * dtype.itemsize * max(columns, default=1)))
    shape = (sum(lengths), *columns)
    return normal(torch.Size(shape).numel(), dtype, seed).reshape(shape), torch.tensor(lengths)


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over runs, threads 1 to 8 and instruction sets, on sums that feel their order."""
    for columns in COLUMNS:
        x, lengths = many(dtype, columns)
        expected = segment_sum(x, lengths=lengths, variant=variant, threads=1)
        for threads in (2, 2, 3, 4, 5, 6, 7, 8):
            found = segment_sum(x, lengths=lengths, variant=variant, threads=threads)
            assert bits_of(found) == bits_of(expected), (columns, threads)
        for isa in _C.available_isas():
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            found = segment_sum(x, lengths=lengths, variant=variant, threads=1)
            assert bits_of(found) == bits_of(expected), (columns, isa)
        monkeypatch.delenv("NONDET_PROBE_ISA")


def bound(variant: str, addends: Tensor) -> Fraction:
    """registry.Variant.error_bound, before the rounding to the dtype."""
    n = addends.numel()
    depths = {"atomic": 7 + -(-n // 64), "ordered": 69 + (-(-n // 4096) - 1).bit_length()}
    return rounding_errors(depths[variant], addends) if variant in depths else Fraction(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    lengths = [1, 2, 64, 100, 4096, 5000, 20_000]
    x = normal(2 * sum(lengths), dtype, 5).reshape(-1, 2)
    x[:, 1] = x[:, 1].abs()
    found = segment_sum(x, lengths=torch.tensor(lengths), variant=variant, threads=2)
    for row, rows in zip(found, x.split(lengths), strict=True):
        for column in range(2):
            addends = rows[:, column].contiguous()
            assert within(row[column], addends, bound(variant, addends)), len(rows)


def test_the_check_of_bounds_can_fail() -> None:
    x = normal(5000, torch.float32, 5)
    for variant in VARIANTS:
        found = segment_sum(x, lengths=torch.tensor([5000]), variant=variant)
        beyond = from_bits([bits_of(found)[0] + 2000], x.dtype)
        assert not within(beyond, x, bound(variant, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atomic_is_seen_to_vary(dtype: torch.dtype) -> None:
    x, lengths = normal(4_000_000, dtype, 2), torch.tensor([3, 3_999_997])
    compute = lambda: segment_sum(x, lengths=lengths, variant="atomic", threads=2)  # noqa: E731
    assert distinct(compute, enough=2, most=500) == 2
    alone = lambda: segment_sum(x, lengths=lengths, variant="atomic", threads=1)  # noqa: E731
    assert distinct(alone, enough=2, most=5) == 1


# ---- exact, on everything that sums go wrong on


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_correctly_rounded(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor of a family is a segment, in one column and as the middle one of three."""
    vectors = family(name, dtype)
    if not vectors:
        return
    lengths = torch.tensor([len(vector) for vector in vectors])
    x = torch.cat(vectors)
    expected = [bits_of(sum_ref(vector))[0] for vector in vectors]
    three = torch.stack([torch.ones_like(x), x, x.flip(0)], 1)
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        assert bits_of(segment_sum(x, lengths=lengths, threads=2)) == expected, isa
        assert bits_of(segment_sum(three, lengths=lengths)[:, 1]) == expected, isa


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_segments_of_which_some_parts_are_wide(dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    x = normal(60_000, dtype, 7).reshape(20_000, 3)
    x[5000:5010, 1] = from_bits([form.infinity - 1] * 5 + [1] * 5, dtype)  # both ends of the format
    x[9000, 2] = float("inf")
    x[:, 0] = -0.0
    lengths = torch.tensor([9990, 10, 10_000])
    expected = bits_of(segment_sum_ref(x, lengths=lengths))
    for threads in (1, 2, 3, 8):
        assert bits_of(segment_sum(x, lengths=lengths, threads=threads)) == expected
    assert expected[0] == form.sign
    assert expected[2] == form.infinity


def test_exact_is_the_same_in_any_order() -> None:
    x = torch.cat([normal(3000, torch.float32, 3), normal(3000, torch.float32, 4) * 2.0**-14])
    lengths = torch.tensor([6000])
    expected = bits_of(segment_sum(x, lengths=lengths))
    orders = [torch.arange(6000).flip(0), x.argsort(), x.abs().argsort(descending=True)]
    orders += [torch.randperm(6000, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    for order in orders:
        assert bits_of(segment_sum(x[order], lengths=lengths)) == expected
    in_order = [segment_sum(x[order], lengths=lengths, variant="ordered") for order in orders]
    assert len({bits_of(found)[0] for found in in_order}) > 1


# ---- ordered is the format of sum's fixed_order, for every column


@pytest.mark.parametrize("dtype", DTYPES)
def test_ordered_is_the_tree_of_sum(dtype: torch.dtype) -> None:
    lengths = [*range(135), *LENGTHS]
    for columns in (1, 2, 131):
        x = normal(sum(lengths) * columns, dtype, 9).reshape(-1, columns)
        found = segment_sum(x, lengths=torch.tensor(lengths), variant="ordered", threads=2)
        for row, rows in zip(found, x.split(lengths), strict=True):
            for column in {0, columns // 2, columns - 1}:
                expected = sum_all(rows[:, column].contiguous(), variant="fixed_order")
                assert bits_of(row[column]) == bits_of(expected), (columns, len(rows))


# ---- zeros, specials, layouts, shapes


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_and_specials(variant: str, dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    one = bits_of(torch.ones(1, dtype=dtype))[0]
    cases = (
        ([], 0),
        ([form.sign], form.sign),
        ([form.sign] * 100, form.sign),
        ([form.sign] * 5000, form.sign),
        ([form.sign] * 99 + [0], 0),
        ([one, one | form.sign], 0),
        ([form.infinity], form.infinity),
        ([form.infinity, one], form.infinity),
        ([form.infinity | form.sign, one], form.infinity | form.sign),
        ([form.infinity, form.infinity | form.sign], form.quiet_nan),
        ([form.infinity | form.sign, one, form.infinity], form.quiet_nan),
        ([form.quiet_nan | form.sign | 5, one], form.quiet_nan),
        ([one, form.infinity + 1], form.quiet_nan),
        ([form.infinity + 1], form.quiet_nan),
        ([form.infinity + 1] + [one] * 5000, form.quiet_nan),
        ([1] * 3, 3),
    )
    x = from_bits([bits for patterns, _ in cases for bits in patterns], dtype)
    lengths = torch.tensor([len(patterns) for patterns, _ in cases])
    found = bits_of(segment_sum(x, lengths=lengths, variant=variant))
    assert found == [expected for _, expected in cases]


@pytest.mark.parametrize("variant", ORDERED)
def test_the_layout_does_not_matter(variant: str) -> None:
    x = normal(3 * 600, torch.float32, 11).reshape(600, 3)
    lengths = torch.tensor([100, 0, 500], dtype=torch.int32)
    expected = bits_of(segment_sum(x, lengths=lengths, variant=variant))
    transposed = x.t().contiguous().t()
    apart = torch.stack([x, x], 2)[:, :, 1]
    for same in (transposed, apart):
        assert not same.is_contiguous()
        assert bits_of(segment_sum(same, lengths=lengths, variant=variant)) == expected
    for misaligned in range(1, 9):
        moved = torch.cat([torch.zeros(misaligned), x.flatten()])[misaligned:].reshape(600, 3)
        assert bits_of(segment_sum(moved, lengths=lengths, variant=variant)) == expected
    offsets = torch.tensor([0, 7, 100, 7, 100, 7, 600])[::2]
    assert not offsets.is_contiguous()
    assert bits_of(segment_sum(x, offsets=offsets, variant=variant)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes(variant: str) -> None:
    for rows, lengths, columns in (
        (0, [], ()),
        (0, [0, 0], ()),
        (0, [0, 0], (2,)),
        (3, [3], (0,)),
        (3, [1, 2], (2, 0)),
        (4, [4], (1, 1, 2)),
    ):
        x = torch.ones(rows, *columns)
        found = segment_sum(x, lengths=torch.tensor(lengths, dtype=torch.int64), variant=variant)
        assert found.shape == (len(lengths), *columns)
        whole = [float(n) for n in lengths for _ in range(torch.Size(columns).numel())]
        assert found.flatten().tolist() == whole
    assert segment_sum(torch.zeros(0, 2), offsets=torch.tensor([0]), variant=variant).shape == (
        0,
        2,
    )


def test_the_same_numbers_as_torch() -> None:
    x = torch.arange(60.0).reshape(12, 5)
    lengths = torch.tensor([3, 0, 9])
    expected = torch.segment_reduce(x, "sum", lengths=lengths)
    for variant in VARIANTS:
        assert torch.equal(segment_sum(x, lengths=lengths, variant=variant), expected)


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the modes of x86")
@pytest.mark.parametrize("dtype", DTYPES)
def test_modes_of_the_processor_change_nothing(dtype: torch.dtype) -> None:
    tiny = from_bits([1, 2, 3] * 70_000, dtype)
    x = torch.cat([tiny, normal(200_000, dtype, 12)])
    lengths = torch.tensor([200_000, 5, 9_995, 100_000, 90, 99_910])

    def compute() -> list[int]:
        return [
            bits
            for variant in ORDERED
            for bits in bits_of(segment_sum(x, lengths=lengths, variant=variant, threads=2))
        ]

    expected = compute()
    for mode, found in changed_modes(compute).items():
        assert found == expected, mode


X, TWO = torch.ones(5), torch.tensor([2, 3])
REFUSALS = [
    (X, {"lengths": TWO, "variant": "exakt"}, UnknownNameError, "did you mean 'exact'"),
    (X.int(), {"lengths": TWO}, TypeError, "segment_sum variant 'exact' takes float64"),
    ([1.0], {"lengths": TWO}, TypeError, "takes a torch.Tensor, got list"),
    (X, {}, UsageError, "either lengths or offsets"),
    (X, {"lengths": TWO, "offsets": TWO}, UsageError, "either lengths or offsets"),
    (X, {"lengths": TWO.float()}, TypeError, "int64 or int32, got torch.float32"),
    (X, {"lengths": TWO.reshape(1, 2)}, UsageError, r"one dimension, got shape \(1, 2\)"),
    (X, {"lengths": torch.tensor([2, 2])}, UsageError, "are rows 0 to 4, the data has 5 rows"),
    (X, {"lengths": torch.tensor([7, -2])}, UsageError, "segment 1 has -2 rows"),
    (
        X,
        {"lengths": torch.tensor([], dtype=torch.int64)},
        UsageError,
        "rows 0 to 0, the data has 5",
    ),
    (X, {"offsets": torch.tensor([1, 5])}, UsageError, "are rows 1 to 5, the data has 5 rows"),
    (X, {"offsets": torch.tensor([0, 6])}, UsageError, "are rows 0 to 6, the data has 5 rows"),
    (X, {"offsets": torch.tensor([0, 4, 3, 5])}, UsageError, "segment 1 has -1 rows"),
    (X, {"offsets": torch.tensor([], dtype=torch.int64)}, UsageError, "got none"),
    (torch.tensor(1.0), {"lengths": TWO}, UsageError, "must have a first dimension"),
    (X, {"lengths": TWO, "threads": 0}, UsageError, "threads must be at least 1, got 0"),
    (X.to("meta"), {"lengths": TWO}, TypeError, "on cpu or cuda, got one on meta"),
]


@pytest.mark.parametrize(("data", "keywords", "error", "message"), REFUSALS)
def test_refusals(
    data: Tensor, keywords: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        segment_sum(data, **keywords)


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x = normal(30, dtype, 6).reshape(10, 3).requires_grad_()
    check_operator("segment_sum", (x, torch.tensor([3, 0, 7]), None, variant, 2))
    if dtype is torch.float64 and variant == "exact":
        check_operator("segment_sum", (x, None, torch.tensor([0, 3, 10]), variant, 2))
        check_operator("segment_expand", (x, torch.tensor([1] * 10), None, 10, variant, 2))


# Sums of less than 64 rows have one part, so that two threads add nothing to each other's.
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    x = normal(12, torch.float64, 7).reshape(6, 2).requires_grad_()
    sizes = {"lengths": torch.tensor([2, 0, 4])}
    if variant == "exact":
        sizes = {"offsets": torch.tensor([0, 5, 6])}
    forward = lambda y: segment_sum(y, **sizes, variant=variant)  # noqa: E731
    assert torch.autograd.gradcheck(forward, (x,), nondet_tol=0.0)
    assert torch.autograd.gradgradcheck(lambda y: forward(y * y), (x,), nondet_tol=0.0)


def test_compiled_code_gives_the_same_bits() -> None:
    x, lengths = normal(5000, torch.float32, 8), torch.tensor([100, 4900])
    for variant in ORDERED:
        compiled = torch.compile(
            lambda y, v=variant: segment_sum(y * 3, lengths=lengths, variant=v),
            backend="aot_eager",
            fullgraph=True,
        )
        expected = segment_sum(x * 3, lengths=lengths, variant=variant)
        assert bits_of(compiled(x)) == bits_of(expected)


def test_a_tensor_without_memory_is_refused() -> None:
    freed = torch.zeros(3)
    freed.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="no memory behind it"):
        segment_sum(freed, lengths=torch.tensor([3]))
