"""`fixed_split` is a format, `exact` is exact: both against arithmetic with fractions, on values
that go wrong."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import FAMILIES, bits_of, family, from_bits, from_values, normal, random_bits
from test_sum_float_mode import DOWN, UP, ZERO, flushing, rounding
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import matmul, matmul_ref
from nondet_probe.ops.products import exact_dot, numbers
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits, tensor_of_bits

DTYPES = list(FORMATS)
BLOCK = 256


def rounded(value: Fraction, dtype: torch.dtype) -> Fraction:
    result = exact_sum(tensor_of_bits(round_to_bits(value, dtype), dtype))
    return Fraction(result) if isinstance(result, float) else result


def documented(a: Tensor, b: Tensor, fused: bool = True, block: int = BLOCK) -> int:
    """The bits of one element of `fixed_split`, as docs/ops/matmul.md has it. a, b: 1-D."""
    sums = torch.float64 if a.dtype is torch.float64 else torch.float32
    total = Fraction(0)
    pairs = [(Fraction(x), Fraction(y)) for x, y in zip(numbers(a), numbers(b), strict=True)]
    for start in range(0, len(pairs), block):
        chain = Fraction(0)
        for x, y in pairs[start : start + block]:
            product = x * y if fused else rounded(x * y, sums)
            chain = rounded(product + chain, sums)
        total = rounded(total + chain, sums)
    return round_to_bits(total, a.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fixed_split_is_the_documented_chain(dtype: torch.dtype) -> None:
    for k in (1, 2, 255, 256, 257, 700):
        a, b = normal(2 * k, dtype, k).reshape(2, k), normal(2 * k, dtype, k + 1).reshape(k, 2)
        result = matmul(a, b)
        for i, j in ((0, 0), (1, 1), (0, 1)):
            assert bits_of(result[i, j]) == [documented(a[i], b[:, j])], k


def test_other_chains_give_other_bits() -> None:
    a, b = normal(700, torch.float32, 1), normal(700, torch.float32, 2)
    expected = bits_of(matmul(a, b))
    assert expected == [documented(a, b)]
    assert expected != [documented(a, b, fused=False)]
    assert expected != [documented(a, b, block=512)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_of_the_sums(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """All halfway cases and their neighbours, subnormals and overflows, for the narrow formats."""
    form = FORMATS[dtype]
    top = form.infinity >> form.fraction_bits
    x = random_bits(3000, dtype, np.random.default_rng(3), 0, top - 1)
    # x (1 + 2^-p) and x (1 + 3/2 2^-p) lie at and beside the middle between neighbours.
    near = torch.ones(2, dtype=dtype)
    for i, factor in enumerate((1 + 2.0**-form.fraction_bits, 0.5)):
        near[i] = factor
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for factor in near:
            result = matmul(x.unsqueeze(1), factor.reshape(1, 1))
            sums = torch.float64 if dtype is torch.float64 else torch.float32
            expected = [
                round_to_bits(rounded(Fraction(value) * Fraction(factor.item()), sums), dtype)
                for value in x[:400].double().tolist()
            ]
            found = [bits if bits != form.sign else 0 for bits in bits_of(result[:400])]
            assert found == [bits if bits != form.sign else 0 for bits in expected], isa


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_on_values_that_go_wrong(name: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    for x in family(name, dtype)[:12]:
        if x.numel() == 0:
            continue
        x = x[:300]
        k = x.numel()
        shuffled = x[torch.from_numpy(rng.permutation(k))]
        columns = torch.stack([torch.ones(k, dtype=dtype), x, shuffled], 1)
        rows = torch.stack([x, -shuffled])
        expected = bits_of(matmul_ref(rows, columns))
        assert bits_of(matmul(rows, columns, variant="exact", threads=2)) == expected


def test_exact_holds_products_below_the_subnormals() -> None:
    """Of float64: 2^-1074 2^-1074 counts, as half of what nothing can show, and as a tie's end."""
    least, one = Fraction(2) ** -1074, Fraction(1)
    tie = [least, Fraction(1, 2)]  # half of the smallest subnormal: to even, 0
    cases = [
        ([least], [least], 0),
        ([-least], [least], 1 << 63),
        ([tie[0]], [tie[1]], 0),
        ([tie[0], least], [tie[1], least], 1),
        ([tie[0], -least], [tie[1], least], 0),
        ([least, least], [3 * tie[1], least], 2),
        ([least, least], [3 * tie[1], -least], 1),
        ([one, least, least], [least, tie[1], least], 2),
    ]
    for a, b, expected in cases:
        x, y = from_values(a, torch.float64), from_values(b, torch.float64)
        assert bits_of(matmul(x, y, variant="exact")) == [expected]
        assert bits_of(matmul_ref(x, y)) == [expected]


def test_exact_overflows_only_at_the_end() -> None:
    for dtype in DTYPES:
        form = FORMATS[dtype]
        largest = from_bits([form.infinity - 1], dtype)
        two = torch.tensor([2.0], dtype=dtype)
        a, b = torch.cat([largest] * 3), torch.cat([largest, -largest, two / 2])
        assert bits_of(matmul(a, b, variant="exact")) == bits_of(largest)
        a, b = torch.cat([largest, largest]), torch.cat([largest, -two])
        assert bits_of(matmul(a, b, variant="exact")) == [form.infinity]
        assert bits_of(matmul(-a, b, variant="exact")) == [form.infinity | form.sign]


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_does_not_depend_on_the_order_of_k(dtype: torch.dtype) -> None:
    k = 500
    a, b = normal(3 * k, dtype, 1).reshape(3, k), normal(2 * k, dtype, 2).reshape(k, 2)
    expected = bits_of(matmul(a, b, variant="exact"))
    for seed in range(10):
        order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
        assert bits_of(matmul(a[:, order], b[order], variant="exact")) == expected
    if dtype is torch.float32:
        assert bits_of(matmul(a[:, order], b[order])) != bits_of(matmul(a, b))


@pytest.mark.parametrize("variant", ["splitk_atomic", "splitk_ordered", "fixed_split", "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_nans_and_zeros(dtype: torch.dtype, variant: str) -> None:
    inf, nan = math.inf, math.nan
    cases = [
        ([1.0, inf], [2.0, 3.0], inf),
        ([inf, 1.0], [-2.0, 3.0], -inf),
        ([inf, 1.0], [0.0, 3.0], nan),
        ([0.0, 1.0], [inf, 3.0], nan),
        ([inf, -inf], [1.0, 1.0], nan),
        ([-inf, inf], [1.0, 1.0], nan),
        ([nan, inf], [1.0, 1.0], nan),
        ([inf, nan], [1.0, 1.0], nan),
        ([1.0, 2.0], [nan, 1.0], nan),
        ([0.0, 0.0], [-1.0, -2.0], -0.0),
        ([-0.0, 0.0], [1.0, -0.0], -0.0),
        ([0.0, 0.0], [-1.0, 2.0], 0.0),
        ([1.0, -1.0], [1.0, 1.0], 0.0),
        ([], [], 0.0),
    ]
    quiet = FORMATS[dtype].quiet_nan
    for left, right, expected in cases:
        a, b = torch.tensor(left, dtype=dtype), torch.tensor(right, dtype=dtype)
        wanted = [quiet] if math.isnan(expected) else bits_of(torch.tensor(expected, dtype=dtype))
        for rows, columns in ((1, 1), (1, 40), (7, 5), (30, 2)):
            result = matmul(
                a.expand(rows, len(left)),
                b.unsqueeze(1).expand(len(right), columns),
                variant=variant,
            )
            assert set(bits_of(result)) == set(wanted), (left, right)


@pytest.mark.parametrize("dtype", DTYPES)
def test_payloads_of_nans_do_not_come_through(dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    for pattern in (form.quiet_nan | 5, form.infinity | 3, form.quiet_nan | form.sign | 1):
        a = torch.cat([from_bits([pattern], dtype), torch.ones(3, dtype=dtype)])
        for variant in ("fixed_split", "splitk_ordered", "exact"):
            result = matmul(a.expand(6, 4), torch.ones(4, 33, dtype=dtype), variant=variant)
            assert set(bits_of(result)) == {form.quiet_nan}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", _C.available_isas())
def test_no_mode_changes_a_bit(
    isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    subnormal = random_bits(40 * 60, dtype, np.random.default_rng(1), 0, 2).reshape(40, 60)
    a, b = normal(40 * 300, dtype, 1).reshape(40, 300), normal(300 * 50, dtype, 2).reshape(300, 50)
    pairs = [(a, b), (a[:1], b), (subnormal, torch.ones(60, 20, dtype=dtype)), (a, b[:, :1])]

    def results() -> list[list[int]]:
        return [
            bits_of(matmul(left, right, variant=variant, threads=2))
            for variant in ("splitk_ordered", "fixed_split", "exact")
            for left, right in pairs
        ]

    expected = results()
    with flushing():
        flushed = results()
    assert flushed == expected
    for mode in (DOWN, UP, ZERO):
        with rounding(mode):
            other = results()
        assert other == expected, hex(mode)


def test_references_agree_with_hand_made_sums() -> None:
    a, b = torch.tensor([[1e8, 1.0, -1e8]]), torch.ones(3, 1)
    assert matmul_ref(a, b).item() == 1.0
    assert exact_dot(numbers(torch.tensor([-0.0, 0.0])), numbers(torch.ones(2))) == 0
    assert matmul_ref(torch.ones(2, 3, 4), torch.ones(4)).tolist() == [[4.0] * 3] * 2
