"""`var` and `var_mean`: promises, the exact fractions they must give, dimensions, refusals."""

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
from nondet_probe.ops import Guarantee, var, var_mean, var_mean_ref, var_ref, variants
from nondet_probe.ops.rational import FORMATS
from nondet_probe.ops.rational_products import elements

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("var")]
ORDERED = [v.name for v in variants("var") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]
ISAS = _C.available_isas()


def both(x: Tensor, *args: object, **keywords: object) -> list[int]:
    """The bits of the variances, then of the means."""
    return [bits for part in var_mean(x, *args, **keywords) for bits in bits_of(part)]  # type: ignore[arg-type]


def both_ref(x: Tensor, *args: object, **keywords: object) -> list[int]:
    return [bits for part in var_mean_ref(x, *args, **keywords) for bits in bits_of(part)]  # type: ignore[arg-type]


# ---- the same bits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long row, shared out in pieces, and many short ones, shared out whole."""
    for x in (normal(300_077, dtype, 1)[None], normal(300_000, dtype, 2).reshape(1000, 300)):
        x = x + 3
        same_bits_everywhere(
            lambda threads, x=x: torch.cat(var_mean(x, -1, variant=variant, threads=threads)),  # type: ignore[misc]
            monkeypatch,
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_pass_depends_on_the_threads_and_on_nothing_else(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(300_077, dtype, 1) + 3
    per_threads = {}
    for threads in (1, 2, 3, 5):
        seen = {tuple(both(x, variant="two_pass", threads=threads)) for _ in range(5)}
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            seen.add(tuple(both(x, variant="two_pass", threads=threads)))
        assert len(seen) == 1, threads
        per_threads[threads] = seen.pop()
    if dtype in (torch.float32, torch.float64):
        assert len(set(per_threads.values())) > 1


def lanes_sum(x: Tensor) -> Tensor:
    """sum's fixed_order, written a second time."""
    partials = []
    for chunk in x.split(4096):
        lanes = torch.full((64,), -0.0, dtype=x.dtype)
        for row in chunk.split(64):
            lanes[: len(row)] += row
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        partials.append(lanes[0])
    while len(partials) > 1:
        odd = partials[len(partials) // 2 * 2 :]
        pairs = zip(partials[0::2], partials[1::2], strict=False)
        partials = [left + right for left, right in pairs] + odd
    return partials[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_format_is_the_documented_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    for n in (1, 2, 63, 64, 65, 200, 4096, 4097, 20_000):
        x = normal(n, dtype, n) + 1
        mean = lanes_sum(x.to(wide)) / torch.tensor(n, dtype=wide)
        deviations = x.to(wide) - mean
        variance = lanes_sum(deviations * deviations) / torch.tensor(n - 1, dtype=wide)
        mean, variance = mean.to(dtype), variance.to(dtype)
        expected = [bits_of(variance)[0] if n > 1 else FORMATS[dtype].quiet_nan, bits_of(mean)[0]]
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert both(x, variant="fixed_order") == expected, (isa, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_mode_changes_a_bit(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(11)
    xs = [random_bits(2000, dtype, rng, 0, 1), normal(300_000, dtype, 12) + 1]
    plain, flushed, rounded = results_under_modes(
        lambda: [bit for v in VARIANTS for x in xs for bit in both(x, variant=v, threads=2)]
    )
    assert flushed == plain
    assert rounded == plain


# ---- the right bits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_the_reference(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = family(name, dtype)
    for number, whole in enumerate(vectors[:: 1 + len(vectors) // 15]):
        x = whole[:400]
        correction = (1, 0, 2, -3)[number % 4]
        expected = both_ref(x, correction=correction)
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert both(x, correction=correction) == expected, (number, isa)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_every_length(dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 63, 64, 65, 1000, 4095, 4096, 4097, 9000):
        x = (normal(2 * n, dtype, n) * 3 + 100).reshape(2, n)
        assert both(x, 1) == both_ref(x, 1), n


def test_quick_and_slow_rows_side_by_side() -> None:
    """A row that 128 bits do not hold, between rows that they do, and a long one in pieces."""
    x = normal(6 * 200, torch.float32, 1).reshape(6, 200)
    x[1, 7], x[3] = 1e30, x[3] * 1e-30
    x[4, 3], x[5] = math.inf, -0.0
    assert both(x, 1) == both_ref(x, 1)
    base = normal(1500, torch.float64, 2) + 5
    long = base.repeat(200)
    exact, mean = var_mean(long, correction=0, threads=3)
    once, once_mean = var_mean_ref(base, correction=0)
    assert bits_of(exact) == bits_of(once)
    assert bits_of(mean) == bits_of(once_mean)


def test_the_mean_far_from_zero() -> None:
    """Where the textbook formula loses everything in floating point."""
    x = torch.tensor([2.0**24, 2.0**24 + 2, 2.0**24 + 4])
    assert var(x).item() == 4.0
    y = (torch.arange(5000) % 2 * 2.0**-20 + 1).double() * 2.0**500
    assert bits_of(var(y)) == bits_of(var_ref(y))
    assert var(torch.full((5000,), 0.1)).item() == 0.0


def bounds(x: Tensor, threads: int, variant: str) -> tuple[Fraction, Fraction]:
    """Of the variance and of the mean: registry.Variant.error_bound."""
    n = x.numel()
    depth = 69 + math.ceil(math.log2(math.ceil(n / 4096)))
    if variant == "two_pass":
        depth = 7 + n // 64 + threads
    if variant == "exact":
        return Fraction(0), Fraction(0)
    u = Fraction(2) ** (-53 if x.dtype is torch.float64 else -24)
    values = [Fraction(value) for value in elements(x)]
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    off = (depth + 2) * u / (1 - (depth + 2) * u) * sum(map(abs, values)) / n
    whole = variance + Fraction(n, n - 1) * off**2
    return (depth + 6) * u / (1 - (depth + 6) * u) * whole + whole - variance, off


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    for n in (2, 64, 100, 5000):
        x = normal(n, dtype, n) + 10
        values = [Fraction(value) for value in elements(x)]
        mean = sum(values) / n
        variance = sum((value - mean) ** 2 for value in values) / (n - 1)
        found = both(x, variant=variant, threads=2)
        for bits, exact, bound in zip(found, (variance, mean), bounds(x, 2, variant), strict=True):
            assert is_within(bits, exact, bound, dtype), n
            assert not is_within(bits + (1 << FORMATS[dtype].fraction_bits), exact, bound, dtype)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_specials(variant: str, dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    nan, inf = form.quiet_nan, form.infinity
    one = bits_of(torch.ones(1, dtype=dtype))[0]
    for patterns, expected in (
        ([], [nan, nan]),
        ([one], [nan, one]),
        ([form.sign] * 70, [0, form.sign]),
        ([form.sign, 0], [0, 0]),
        ([inf, one], [nan, inf]),
        ([inf | form.sign, one], [nan, inf | form.sign]),
        ([inf, inf | form.sign], [nan, nan]),
        ([one, form.infinity + 1, one], [nan, nan]),
        ([form.quiet_nan | form.sign | 5, inf], [nan, nan]),
    ):
        x = from_bits(patterns, dtype)
        assert both(x, variant=variant) == both(x.flip(0), variant=variant) == expected, patterns


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("correction", [2, 3, 10])
@pytest.mark.filterwarnings("ignore:var.*degrees of freedom")
def test_without_degrees_of_freedom_as_torch(variant: str, correction: int) -> None:
    for values in ([1.0, 2.0], [1.0, 1.0]):
        x = torch.tensor(values)
        expected = bits_of(torch.var(x, correction=correction).nan_to_num(nan=7.0, posinf=8.0))
        found = var(x, correction=correction, variant=variant).nan_to_num(nan=7.0, posinf=8.0)
        assert bits_of(found) == expected


# ---- dimensions


@pytest.mark.parametrize("dim", [None, [], 0, 1, 2, -1, (0, 2), (1, 2), (-3, -2), (2, 0, 1)])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_dimensions(dim: int | tuple[int, ...] | None, keepdim: bool, variant: str) -> None:
    x = (normal(3 * 70 * 5, torch.float32, 1) + 2).reshape(3, 70, 5)
    found, mean = var_mean(x, dim, keepdim=keepdim, variant=variant)
    torch_shape = torch.var(x, dim, keepdim=keepdim).shape
    assert found.shape == mean.shape == torch_shape
    assert found.is_contiguous()
    if variant == "exact":
        expected = var_mean_ref(x, dim, keepdim=keepdim)
        assert [bits_of(found), bits_of(mean)] == [bits_of(part) for part in expected]
        assert torch_shape == expected[0].shape


@pytest.mark.parametrize("variant", VARIANTS)
def test_bits_do_not_depend_on_strides(variant: str) -> None:
    x = normal(130 * 170, torch.float32, 4).reshape(130, 170)
    expected = both(x.t().contiguous(), 1, variant=variant)
    assert both(x, 0, variant=variant) == expected
    assert both(x.t(), 1, variant=variant) == expected
    wide = torch.zeros(170, 260)
    wide[:, ::2] = x.t()
    assert both(wide[:, ::2], -1, variant=variant) == expected


def test_empty_and_zero_dimensional() -> None:
    nan = [FORMATS[torch.float32].quiet_nan]
    assert bits_of(var(torch.ones(0, 3), 0)) == nan * 3
    assert var(torch.ones(0, 3), 1).shape == (0,)
    assert bits_of(var(torch.tensor(4.0))) == nan
    assert var(torch.tensor(4.0), 0, correction=0).item() == 0.0


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: var(torch.ones(2), variant="atomic"), UnknownNameError, "Known: exact, fixed_order"),
    (lambda: var(torch.ones(2).int()), TypeError, "takes float64, .*; got int32"),
    (lambda: var([1.0]), TypeError, "got list"),  # type: ignore[arg-type]
    (lambda: var(torch.ones(2), correction=0.5), TypeError, "int for correction, got float"),  # type: ignore[arg-type]
    (lambda: var(torch.ones(2, 2), (0, 2)), IndexError, r"dim 2 \(at position 1"),
    (lambda: var(torch.ones(2, 2), -3), IndexError, "out of range for a tensor of 2"),
    (lambda: var(torch.ones(2, 2), (1, -1)), ValueError, "appears twice"),
    (lambda: var(torch.ones(2), threads=0), UsageError, "at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x = normal(60, dtype, 6).reshape(3, 4, 5).requires_grad_()
    opcheck(torch.ops.nondet_probe.var_mean.default, (x, [0, 2], variant, 1, True, 2))


def test_gradients() -> None:
    x = normal(12, torch.float64, 7).reshape(3, 4).requires_grad_()
    for variant in VARIANTS:
        for dim, correction in ((None, 1), (0, 0), (-1, 2)):
            call = lambda y, v=variant, d=dim, c=correction: var_mean(y, d, correction=c, variant=v)  # noqa: E731
            assert torch.autograd.gradcheck(call, (x,))
            assert torch.autograd.gradgradcheck(call, (x,))


def test_compiled_code_gives_the_same_bits() -> None:
    x = normal(6000, torch.float32, 8).reshape(20, 300)
    for variant in ORDERED:
        compiled = torch.compile(
            lambda y, v=variant: torch.cat(var_mean(y * 3, 1, variant=v)),
            backend="aot_eager",
            fullgraph=True,
        )
        assert bits_of(compiled(x)) == both(x * 3, 1, variant=variant)
