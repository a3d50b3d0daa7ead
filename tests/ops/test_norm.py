"""`norm`: no square overflows, the root is rounded once, and the kernels are those of `dot`."""

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
from nondet_probe.ops import norm, norm_ref, variants
from nondet_probe.ops.rational import FORMATS
from nondet_probe.ops.rational_products import exact_dot, root_to_bits

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("norm")]
ISAS = _C.available_isas()
MANY = (3 << 18) + 77  # work for three threads


def one(x: Tensor, variant: str, threads: int | None = 1) -> int:
    return bits_of(norm(x, variant=variant, threads=threads))[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(MANY, dtype, 1) / 8
    same_bits_everywhere(lambda threads: norm(x, variant=variant, threads=threads), monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_the_reference(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = family(name, dtype)
    for number, whole in enumerate(vectors[:: 1 + len(vectors) // 25]):
        x = whole[:500]
        expected = bits_of(norm_ref(x))[0]
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert one(x, "exact") == expected, (number, isa)


def bound(variant: str, n: int, dtype: torch.dtype) -> Fraction:
    """Of the relative error."""
    if variant == "exact":
        return Fraction(0)
    if variant == "binned":
        wide = Fraction(2) ** -53 + n * Fraction(2) ** -80
        return wide if dtype is torch.float64 else n * Fraction(2) ** -40
    depth = 71 + math.ceil(math.log2(math.ceil(n / 4096)))
    relative = depth * Fraction(2) ** (-53 if dtype is torch.float64 else -24)
    return relative / (1 - relative)


def is_close(bits: int, x: Tensor, variant: str) -> bool:
    # 200 bits of the root are as good as all of them.
    root = Fraction(math.isqrt(int(Fraction(exact_dot(x, x)) * 4**200))) / 2**200
    return is_within(bits, root, root * bound(variant, x.numel(), x.dtype), x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    for n in (1, 2, 64, 100, 5000):
        x = normal(n, dtype, n)
        bits = one(x, variant)
        assert is_close(bits, x, variant)
        assert not is_close(bits + (1 << FORMATS[dtype].fraction_bits), x, variant)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_square_overflows_or_underflows(dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    for bits in (form.infinity - 1, 1, 1 << form.fraction_bits):
        x = from_bits([bits, 0, form.sign], dtype)
        for variant in ("binned", "exact"):
            assert one(x, variant) == bits
    pair = from_bits([form.infinity - 1] * 2, dtype)
    assert one(pair, "exact") == one(pair, "binned") == form.infinity
    least = from_bits([1] * 4, dtype)
    assert one(least, "exact") == one(least, "binned") == 2


def test_roots_are_rounded_once() -> None:
    """Sums of squares next to the square of a midpoint, where a root of fp64 rounds twice."""
    rng = np.random.default_rng(1)
    told = 0
    for _ in range(300):
        middle = int(rng.integers(1 << 23, 1 << 24)) * 2 + 1
        parts = [int(rng.integers(1, 1 << 10)) for _ in range(3)]
        x = torch.tensor([middle >> 13 << 13, middle & 0x1FFF, *parts], dtype=torch.float32)
        assert bits_of(norm(x)) == bits_of(norm_ref(x))
        told += bits_of(norm(x)) != bits_of(norm(x, variant="fixed_order"))
    assert told > 0
    exact = Fraction(3**2 + 4**2)
    assert root_to_bits(exact, torch.float64) == bits_of(torch.tensor(5.0, dtype=torch.float64))[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_zeros_and_specials(variant: str, dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    for patterns, expected in (
        ([], 0),
        ([form.sign] * 100, 0),
        ([form.infinity | form.sign, 1], form.infinity),
        ([form.infinity, form.infinity | form.sign], form.infinity),
        ([form.infinity, form.quiet_nan | form.sign | 5], form.quiet_nan),
        ([form.infinity + 1, form.infinity], form.quiet_nan),
    ):
        x = from_bits(patterns, dtype)
        assert one(x, variant) == one(x.flip(0), variant) == expected, patterns


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["binned", "exact"])
def test_any_order_is_the_same(variant: str, dtype: torch.dtype) -> None:
    x = torch.cat([normal(3000, dtype, 3), normal(3000, dtype, 4) * 2.0**-9])
    expected = one(x, variant)
    for seed in range(10):
        order = torch.randperm(6000, generator=torch.Generator().manual_seed(seed))
        assert one(x[order], variant) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_mode_changes_a_bit(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(11)
    xs = [random_bits(2000, dtype, rng, 0, 1), normal(600_000, dtype, 12)]
    plain, flushed, rounded = results_under_modes(
        lambda: [one(x, variant, 2) for variant in VARIANTS for x in xs]
    )
    assert flushed == plain
    assert rounded == plain


def test_shapes_and_strides() -> None:
    base = normal(600, torch.float32, 20).reshape(20, 30)
    for x in (base, base.t(), base[::3, 1::2], base[0, 0], base[:0]):
        for variant in VARIANTS:
            result = norm(x, variant=variant)
            assert result.shape == ()
            assert bits_of(result) == [one(x.contiguous(), variant)]


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: norm(torch.ones(2), variant="atomic"), UnknownNameError, "Known: binned, exact"),
    (lambda: norm(torch.ones(2).int()), TypeError, "takes float64, .*; got int32"),
    (lambda: norm([1.0]), TypeError, "got list"),  # type: ignore[arg-type]
    (lambda: norm(torch.ones(2), threads=0), UsageError, "at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x = normal(300, dtype, 6).requires_grad_()
    opcheck(torch.ops.nondet_probe.norm.default, (x, variant, 2))


def test_gradients() -> None:
    x = normal(12, torch.float64, 7).reshape(3, 4).requires_grad_()
    for variant in VARIANTS:
        call = lambda y, v=variant: norm(y, variant=v)  # noqa: E731
        assert torch.autograd.gradcheck(call, (x,))
        assert torch.autograd.gradgradcheck(call, (x,))


def test_the_gradient_at_zero_is_zero() -> None:
    x = torch.zeros(3, requires_grad=True)
    norm(x).backward()
    assert x.grad is not None
    assert bits_of(x.grad) == [0, 0, 0]


def test_compiled_code_gives_the_same_bits() -> None:
    x = normal(5000, torch.float32, 8)
    for variant in VARIANTS:
        compiled = torch.compile(
            lambda y, v=variant: norm(y * 3, variant=v), backend="aot_eager", fullgraph=True
        )
        assert bits_of(compiled(x)) == [one(x * 3, variant)]
