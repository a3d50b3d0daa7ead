"""`cumsum`: every prefix of `exact` is the reference, `fixed_order` is the documented format."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import FAMILIES, bits_of, family, from_bits, normal, random_bits
from promises import is_within, opcheck, results_under_modes, same_bits_everywhere
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, cumsum, cumsum_ref, sum_ref, variants
from nondet_probe.ops.rational import FORMATS
from nondet_probe.ops.rational_products import elements

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("cumsum")]
ISAS = _C.available_isas()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long row, whose chunks are shared out, and many short ones."""
    for shape in ((1, 90_001), (300, 300)):
        x = normal(math.prod(shape), dtype, 1).reshape(shape)
        same_bits_everywhere(
            lambda threads, x=x: cumsum(x, 1, variant=variant, threads=threads),  # type: ignore[misc]
            monkeypatch,
        )


def documented(x: Tensor) -> Tensor:
    """The format of fixed_order, a second time, in numpy."""
    wide = (x if x.dtype in (torch.float64, torch.float32) else x.float()).numpy()
    sums = np.empty_like(wide)
    before_chunk = wide.dtype.type(-0.0)
    for chunk in range(0, len(wide), 4096):
        before_block = wide.dtype.type(-0.0)
        for block in range(chunk, min(chunk + 4096, len(wide)), 64):
            within = wide[block : min(block + 64, chunk + 4096)].copy()
            for i in range(1, len(within)):
                within[i] += within[i - 1]
            sums[block : block + len(within)] = (before_chunk + before_block) + within
            before_block = before_block + within[-1]
        before_chunk = before_chunk + before_block
    return torch.from_numpy(sums).to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_format_is_the_documented_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (1, 2, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097, 9001):
        x = normal(n, dtype, n)
        expected = bits_of(documented(x))
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert bits_of(cumsum(x, 0, variant="fixed_order")) == expected, (isa, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_mode_changes_a_bit(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(11)
    xs = [random_bits(2000, dtype, rng, 0, 1), normal(80_000, dtype, 12)]
    plain, flushed, rounded = results_under_modes(
        lambda: [
            bits
            for v in VARIANTS
            for x in xs
            for bits in bits_of(cumsum(x, 0, variant=v, threads=2))
        ]
    )
    assert flushed == plain
    assert rounded == plain


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_the_reference(name: str, dtype: torch.dtype) -> None:
    vectors = family(name, dtype)
    for number, whole in enumerate(vectors[:: 1 + len(vectors) // 12]):
        x = whole[:200]
        assert bits_of(cumsum(x, 0)) == bits_of(cumsum_ref(x, 0)), number


@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_of_a_row_shared_out(dtype: torch.dtype) -> None:
    """Prefixes far into a long row, against the exact sum of that prefix."""
    x = normal(100_000, dtype, 5)
    one, three = (bits_of(cumsum(x, 0, threads=threads)) for threads in (1, 3))
    assert one == three
    for end in (1, 4096, 4097, 50_000, 99_999, 100_000):
        assert one[end - 1 : end] == bits_of(sum_ref(x[:end])), end


def test_the_reference_is_that_of_sum() -> None:
    x = family("ill_conditioned", torch.float64)[3][:200]
    assert bits_of(cumsum_ref(x, 0)) == [bits_of(sum_ref(x[: i + 1]))[0] for i in range(len(x))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_128_bits_do_not_hold(dtype: torch.dtype) -> None:
    """Beside rows that they do; the widths around the limit."""
    form = FORMATS[dtype]
    top = (form.infinity >> form.fraction_bits) - 1
    rows = []
    for width in (0, 60, 61, 62, 63, 64, 65, 66, 67, 68, 90, 93, 94, 95, 96, 97, 98, 99, 100, 2000):
        rng = np.random.default_rng(width)
        high = min(1 + width, top)
        ends = from_bits([1 << form.fraction_bits, (high << form.fraction_bits) - 1], dtype)
        rows.append(torch.cat([ends, random_bits(62, dtype, rng, 1, high)]))
    x = torch.stack(rows)
    assert bits_of(cumsum(x, 1)) == bits_of(cumsum_ref(x, 1))
    assert bits_of(cumsum(-x.abs(), 1)) == bits_of(cumsum_ref(-x.abs(), 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_and_sums_around_64_bits(dtype: torch.dtype) -> None:
    """In units of the smallest subnormal, so that some sums are subnormal."""
    form = FORMATS[dtype]
    unit, precision = from_bits([1], dtype).double().item(), form.precision
    rows = [[sign * 2**power, *[sign] * 20] for sign in (1, -1) for power in range(precision + 2)]
    if dtype is not torch.float16:  # whose numbers do not reach as far
        steps = np.random.default_rng(3).integers(-(2 ** (precision - 1)), 2 ** (precision - 1), 18)
        rows += [[sign * 2**62, sign * 2**62, sign, *steps.tolist()] for sign in (1, -1)]
        rows += [[sign * 2**62, sign * 2**62, *[-sign] * 19] for sign in (1, -1)]
    x = torch.tensor([[number * unit for number in row] for row in rows], dtype=torch.float64)
    x = x.to(dtype)
    assert bits_of(cumsum(x, 1)) == bits_of(cumsum_ref(x, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fixed_order_is_within_its_bound(dtype: torch.dtype) -> None:
    n = 5000
    x = normal(n, dtype, 3)
    found = bits_of(cumsum(x, 0, variant="fixed_order"))
    values = [Fraction(value) for value in elements(x)]
    relative = (128 + 2) * Fraction(2) ** (-53 if dtype is torch.float64 else -24)
    exact, sizes = Fraction(0), Fraction(0)
    for i, value in enumerate(values):
        exact, sizes = exact + value, sizes + abs(value)
        bound = relative / (1 - relative) * sizes
        assert is_within(found[i], exact, bound, dtype), i
    doubled = found[-1] + (1 << FORMATS[dtype].fraction_bits)
    assert not is_within(doubled, exact, bound, dtype)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_and_specials(variant: str, dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    one = bits_of(torch.ones(1, dtype=dtype))[0]
    nan, inf, sign = form.quiet_nan, form.infinity, form.sign
    for patterns, expected in (
        ([sign, sign, 0, sign], [sign, sign, 0, 0]),
        ([sign] * 5000, [sign] * 5000),
        ([one, one | sign, sign], [one, 0, 0]),
        ([one, inf, one, inf | sign, one], [one, inf, inf, nan, nan]),
        ([inf | sign, one], [inf | sign, inf | sign]),
        ([one, nan | sign | 5, one], [one, nan, nan]),
        ([form.infinity + 1, one], [nan, nan]),
    ):
        assert bits_of(cumsum(from_bits(patterns, dtype), 0, variant=variant)) == expected


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_dimensions_and_strides(dim: int, variant: str) -> None:
    x = normal(3 * 70 * 5, torch.float32, 1).reshape(3, 70, 5)
    found = cumsum(x, dim, variant=variant)
    assert found.shape == x.shape
    assert found.is_contiguous()
    moved = x.movedim(dim, -1).contiguous()
    expected = cumsum(moved, -1, variant=variant).movedim(-1, dim)
    assert bits_of(found) == bits_of(expected)
    assert bits_of(
        cumsum(x.transpose(0, 2), 2 - dim % 3, variant=variant).transpose(0, 2)
    ) == bits_of(found)
    if variant == "exact":
        assert bits_of(found) == bits_of(cumsum_ref(x, dim))


@pytest.mark.parametrize("variant", VARIANTS)
def test_empty_and_zero_dimensional(variant: str) -> None:
    assert cumsum(torch.ones(0, 3), 0, variant=variant).shape == (0, 3)
    assert cumsum(torch.ones(2, 0), 1, variant=variant).shape == (2, 0)
    scalar = torch.tensor(4.0)
    result = cumsum(scalar, 0, variant=variant)
    assert result.item() == 4.0
    assert result.data_ptr() != scalar.data_ptr()


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: cumsum(torch.ones(2), 0, variant="binned"), UnknownNameError, "Known: exact, fixed"),
    (lambda: cumsum(torch.ones(2).int(), 0), TypeError, "takes float64, .*; got int32"),
    (lambda: cumsum([1.0], 0), TypeError, "got list"),  # type: ignore[arg-type]
    (lambda: cumsum(torch.ones(2), 1), IndexError, "dim 1 is out of range for a tensor of 1"),
    (lambda: cumsum(torch.ones(2), 0, threads=0), UsageError, "at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_is_promised() -> None:
    assert {v.name: v.guarantee for v in variants("cumsum")} == {
        "fixed_order": Guarantee.LAUNCH_INVARIANT,
        "exact": Guarantee.CORRECTLY_ROUNDED,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x = normal(60, dtype, 6).reshape(3, 4, 5).requires_grad_()
    opcheck(torch.ops.nondet_probe.cumsum.default, (x, 1, variant, 2))


def test_gradients() -> None:
    x = normal(12, torch.float64, 7).reshape(3, 4).requires_grad_()
    for variant in VARIANTS:
        for dim in (0, -1):
            call = lambda y, v=variant, d=dim: cumsum(y, d, variant=v)  # noqa: E731
            assert torch.autograd.gradcheck(call, (x,))
            assert torch.autograd.gradgradcheck(call, (x,))


def test_compiled_code_gives_the_same_bits() -> None:
    x = normal(6000, torch.float32, 8).reshape(20, 300)
    for variant in VARIANTS:
        compiled = torch.compile(
            lambda y, v=variant: cumsum(y * 3, 1, variant=v), backend="aot_eager", fullgraph=True
        )
        assert bits_of(compiled(x)) == bits_of(cumsum(x * 3, 1, variant=variant))
