"""`dot`: what its variants promise, on vectors that break dot products, and what it refuses."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import FAMILIES, bits_of, family, from_bits, normal, random_bits
from promises import is_within, opcheck, results_under_modes, same_bits_everywhere
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, dot, dot_ref, variants
from nondet_probe.ops.rational import FORMATS
from nondet_probe.ops.rational_products import add_up, elements, exact_dot, multiply

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("dot")]
ISAS = _C.available_isas()
# Threads take 2^18 products each: this is work for three.
MANY = (3 << 18) + 77


def one(a: Tensor, b: Tensor, variant: str, threads: int | None = 1) -> int:
    return bits_of(dot(a, b, variant=variant, threads=threads))[0]


# ---- the same bits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = normal(MANY, dtype, 1), normal(MANY, dtype, 2)
    same_bits_everywhere(lambda threads: dot(a, b, variant=variant, threads=threads), monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_is_that_of_sum_and_products_are_rounded_once(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented format, a second time in torch."""
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    for n in (*range(130), 4095, 4096, 4097, 12289, 20_000):
        a, b = normal(n, dtype, n), normal(n, dtype, n + 1)
        products = a.to(wide) * b.to(wide)
        partials = [chunk_sum(chunk) for chunk in products.split(4096)] if n else [products.sum()]
        while len(partials) > 1:
            odd = partials[len(partials) // 2 * 2 :]
            pairs = zip(partials[0::2], partials[1::2], strict=False)
            partials = [left + right for left, right in pairs] + odd
        expected = bits_of(partials[0].to(dtype))
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert bits_of(dot(a, b, variant="fixed_order")) == expected, (isa, n)


def chunk_sum(products: Tensor) -> Tensor:
    lanes = torch.full((64,), -0.0, dtype=products.dtype)
    for row in products.split(64):
        lanes[: len(row)] += row
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["binned", "exact"])
def test_any_order_is_the_same(variant: str, dtype: torch.dtype) -> None:
    a = torch.cat([normal(3000, dtype, 3), normal(3000, dtype, 4) * 2.0**-9])
    b = torch.cat([normal(3000, dtype, 5) * 2.0**-5, normal(3000, dtype, 6)])
    expected = one(a, b, variant)
    orders = [torch.arange(6000).flip(0), a.argsort(), (a * b).abs().argsort(descending=True)]
    orders += [torch.randperm(6000, generator=torch.Generator().manual_seed(i)) for i in range(10)]
    for order in orders:
        assert one(a[order], b[order], variant) == one(b[order], a[order], variant) == expected
    if dtype is torch.float32:  # the same orders do tell on a sum that depends on them
        assert len({one(a[order], b[order], "fixed_order") for order in orders}) > 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_no_mode_changes_a_bit(
    isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    rng = np.random.default_rng(11)
    subnormal = random_bits(2000, dtype, rng, 0, 1)
    pairs = [
        (subnormal, torch.ones(2000, dtype=dtype)),
        (subnormal, random_bits(2000, dtype, rng, 1, 20)),
        (normal(20_000, dtype, 12), normal(20_000, dtype, 13)),
        (normal(600_000, dtype, 14), normal(600_000, dtype, 15)),
    ]
    plain, flushed, rounded = results_under_modes(
        lambda: [one(a, b, variant, 2) for variant in VARIANTS for a, b in pairs]
    )
    assert flushed == plain
    assert rounded == plain


# ---- the right bits


def partner(x: Tensor, number: int) -> Tensor:
    """Another vector of the family: its elements in another order."""
    return x[torch.from_numpy(np.random.default_rng(number).permutation(len(x)))]


def unlike_pairs(dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Products far apart, products that overflow and cancel, that vanish, and exact zeros."""
    form = FORMATS[dtype]
    top = (form.infinity >> form.fraction_bits) - 1
    rng = np.random.default_rng(5)
    huge, tiny = random_bits(300, dtype, rng, top - 2, top), random_bits(300, dtype, rng, 0, 2)
    one_ = torch.ones(300, dtype=dtype)
    yield huge, tiny
    yield tiny, tiny.flip(0)
    yield torch.cat([huge, huge, one_]), torch.cat([huge.flip(0), -huge.flip(0), tiny])
    yield torch.cat([tiny, tiny, tiny[:1]]), torch.cat([tiny, -tiny, tiny[:1]])
    yield from_bits([0, form.sign, 1], dtype), from_bits([form.sign | 5, 7, form.sign], dtype)
    yield from_bits([0, 1], dtype), from_bits([form.sign, form.sign | 1], dtype)
    yield from_bits([0, 0], dtype), from_bits([form.infinity, 1], dtype)
    scale = torch.from_numpy(np.exp2(np.arange(5000) % 12 - 6.0)).to(dtype)
    yield normal(5000, dtype, 8) * scale, normal(5000, dtype, 9) * scale.flip(0)


def check_binned(a: Tensor, b: Tensor, result: int) -> None:
    exact = exact_dot(a, b)
    if isinstance(exact, float):
        assert result == bits_of(dot_ref(a, b))[0]
        return
    sizes = [abs(multiply(x, y)) for x, y in zip(elements(a), elements(b), strict=True)]
    largest = Fraction(max(sizes, default=0))
    assert is_within(result, exact, binned_bound(largest, add_up(sizes), len(a), a.dtype), a.dtype)


def binned_bound(
    largest: Fraction, whole: Fraction | float, n: int, dtype: torch.dtype
) -> Fraction:
    if dtype is torch.float64:
        return Fraction(whole) * Fraction(2) ** -53 + n * largest * Fraction(2) ** -80
    return n * largest * Fraction(2) ** -40


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_the_reference_and_binned_within_its_bound(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = family(name, dtype)
    for number, whole in enumerate(vectors[:: 1 + len(vectors) // 25]):
        x = whole[:500]
        y = partner(x, number)
        expected = bits_of(dot_ref(x, y))[0]
        binned = set()
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert one(x, y, "exact") == expected, (number, isa)
            binned.add(one(x, y, "binned"))
        assert len(binned) == 1, number
        if number % 4 == 0:
            check_binned(x, y, binned.pop())


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_beyond_the_format(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (a, b) in enumerate(unlike_pairs(dtype)):
        expected = bits_of(dot_ref(a, b))[0]
        binned = set()
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert one(a, b, "exact") == expected, (number, isa)
            binned.add(one(a, b, "binned"))
        assert len(binned) == 1, number
        check_binned(a, b, binned.pop())


def test_neither_overflows_nor_underflows_in_between() -> None:
    big, small = 2.0**600, 2.0**-600
    a = torch.tensor([big, 3.0, -big], dtype=torch.float64)
    b = torch.tensor([big, 5.0, big], dtype=torch.float64)
    assert dot(a, b).item() == 15.0
    assert dot(a[:2], b[:2], variant="binned").item() == math.inf
    assert dot(a, b, variant="binned").item() == 0.0  # 15 is below its last bin
    assert math.isnan(dot(a, b, variant="fixed_order").item())
    a = torch.tensor([small] * 4, dtype=torch.float64)
    b = torch.tensor([small, small, small, 0.0], dtype=torch.float64)
    assert dot(a, b).item() == 0.0  # 3 * 2^-1200 is below half the smallest number


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_zeros_and_specials(variant: str, dtype: torch.dtype) -> None:
    inf, nan = math.inf, math.nan
    for a, b, expected in (
        ([], [], "0.0"),
        ([0.0, -0.0], [-1.0, 1.0], "-0.0"),
        ([0.0, 0.0], [-1.0, 1.0], "0.0"),
        ([1.0, -1.0], [1.0, 1.0], "0.0"),
        ([inf, 1.0], [-1.0, 1.0], "-inf"),
        ([inf, 1.0], [0.0, 1.0], "nan"),
        ([inf, -inf], [1.0, 1.0], "nan"),
        ([1.0, nan], [1.0, 0.0], "nan"),
    ):
        x, y = torch.tensor(a, dtype=dtype), torch.tensor(b, dtype=dtype)
        for left, right in ((x, y), (y.flip(0), x.flip(0))):
            result = dot(left, right, variant=variant)
            assert str(result.item()) == expected, (a, b)
            if expected == "nan":
                assert bits_of(result) == [FORMATS[dtype].quiet_nan]


def fixed_order_bound(a: Tensor, b: Tensor) -> Fraction:
    depth = 70 + math.ceil(math.log2(math.ceil(len(a) / 4096)))
    relative = depth * Fraction(2) ** (-53 if a.dtype is torch.float64 else -24)
    sizes = exact_dot(a.abs(), b.abs())
    least = Fraction(2) ** (-1074 if a.dtype is torch.float64 else -149)
    return relative / (1 - relative) * Fraction(sizes) + len(a) * least / 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_fixed_order_is_within_its_bound(dtype: torch.dtype) -> None:
    for n in (1, 2, 64, 100, 5000):
        a, b = normal(n, dtype, n), normal(n, dtype, n + 1)
        exact = exact_dot(a, b)
        assert isinstance(exact, Fraction)
        bits = one(a, b, "fixed_order")
        assert is_within(bits, exact, fixed_order_bound(a, b), dtype)
        assert not is_within(
            bits + (1 << FORMATS[dtype].fraction_bits), exact, fixed_order_bound(a, b), dtype
        )


def test_strides_and_alignment() -> None:
    base = normal(2000, torch.float32, 20)
    for a, b in ((base[::2], base[1::2]), (base[3:103], base[7:107]), (base[:1].expand(9),) * 2):
        for variant in VARIANTS:
            expected = one(a.clone(), b.clone(), variant)
            assert one(a, b, variant) == expected


# ---- the public function


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: dot(torch.ones(2), torch.ones(2), variant="exakt"), UnknownNameError, "Known: binned"),
    (lambda: dot(torch.ones(2), torch.ones(3)), UsageError, r"one length, got shapes \(2,\)"),
    (lambda: dot(torch.ones(2, 2), torch.ones(2, 2)), UsageError, "pass a.reshape"),
    (lambda: dot(torch.ones(2), torch.ones(2).double()), TypeError, "one dtype"),
    (lambda: dot(torch.ones(2).int(), torch.ones(2).int()), TypeError, "got int32"),
    (lambda: dot(torch.ones(2), [1.0, 1.0]), TypeError, "got list"),  # type: ignore[arg-type]
    (lambda: dot(torch.ones(2), torch.ones(2, device="meta")), TypeError, "got one on meta"),
    (lambda: dot(torch.ones(2), torch.ones(2), threads=0), UsageError, "at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_default_is_exact() -> None:
    a, b = torch.tensor([1e8, 1e8, 1.0]), torch.tensor([1e8, -1e8, 1e-8])
    assert bits_of(dot(a, b)) == bits_of(dot_ref(a, b)) == [one(a, b, "exact")]
    assert one(a, b, "fixed_order") == 0
    assert {v.name: v.guarantee for v in variants("dot")} == {
        "fixed_order": Guarantee.LAUNCH_INVARIANT,
        "binned": Guarantee.ORDER_INVARIANT,
        "exact": Guarantee.CORRECTLY_ROUNDED,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    a, b = (normal(300, dtype, seed).requires_grad_() for seed in (6, 7))
    opcheck(torch.ops.nondet_probe.dot.default, (a, b, variant, 2))


def test_gradients() -> None:
    a, b = (normal(12, torch.float64, seed).requires_grad_() for seed in (6, 7))
    for variant in VARIANTS:
        call = lambda x, y, v=variant: dot(x, y, variant=v)  # noqa: E731
        assert torch.autograd.gradcheck(call, (a, b))
        assert torch.autograd.gradgradcheck(call, (a, b))
    dot(a, b.detach()).backward()
    assert a.grad is not None
    assert bits_of(a.grad) == bits_of(b)


def test_compiled_code_gives_the_same_bits() -> None:
    a, b = normal(5000, torch.float32, 8), normal(5000, torch.float32, 9)
    for variant in VARIANTS:
        compiled = torch.compile(
            lambda x, y, v=variant: dot(x * 3, y, variant=v), backend="aot_eager", fullgraph=True
        )
        assert bits_of(compiled(a, b)) == [one(a * 3, b, variant)]
