"""`exact` and `binned` on the vectors that break sums, on every instruction set."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import FAMILIES, bits_of, family, from_bits, normal, random_bits
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops import sum_ref
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits

DTYPES = list(FORMATS)
ISAS = _C.available_isas()


def one(x: Tensor, variant: str, threads: int = 1) -> int:
    return bits_of(sum_all(x, variant=variant, threads=threads))[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_the_reference(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, x in enumerate(family(name, dtype)):
        expected = bits_of(sum_ref(x))[0]
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert one(x, "exact") == expected, (number, isa)


def number(bits: int, dtype: torch.dtype) -> float:
    return from_bits([bits], dtype).double().item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_binned_keeps_its_promises(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One result over instruction sets and orders, within the bound, specials as in `exact`."""
    rng = np.random.default_rng(9)
    for index, x in enumerate(family(name, dtype)):
        results = set()
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            results.add(one(x, "binned"))
        for order in (torch.arange(x.numel()).flip(0), torch.from_numpy(rng.permutation(len(x)))):
            results.add(one(x[order], "binned"))
        assert len(results) == 1, index
        exact = exact_sum(x)
        if isinstance(exact, float):
            assert results == {round_to_bits(exact, dtype)}, index
            continue
        largest = max((abs(Fraction(value)) for value in x.double().tolist()), default=Fraction(0))
        bound = x.numel() * largest * Fraction(2) ** (-80 if dtype is torch.float64 else -40)
        low, high = (round_to_bits(exact + error, dtype) for error in (-bound, bound))
        result = results.pop()
        assert number(low, dtype) <= number(result, dtype) <= number(high, dtype), index
        assert result != FORMATS[dtype].sign, index  # -0.0 is only for all -0.0


def test_where_cub_fails() -> None:
    """The inputs on which another binned sum loses zeros, scale, invariance or infinities."""
    inf, f32, f64 = math.inf, torch.float32, torch.float64
    small = normal(5000, f64, 1) * 1e-36
    for x in (
        torch.zeros(1000, dtype=f32),
        torch.zeros(100_000, dtype=f64),
        small.to(f32),
        torch.full((1000,), 1e-38, dtype=f32),
        torch.tensor([1e300, 1e300], dtype=f64),
        torch.tensor([1e-200] * 4 + [5e-324], dtype=f64),
        torch.tensor([inf, 1.0], dtype=f32),
        torch.tensor([inf, 1.0], dtype=f64),
    ):
        assert one(x, "binned") == one(x, "exact") == bits_of(sum_ref(x))[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_alignment(dtype: torch.dtype) -> None:
    base = random_bits(700, dtype, np.random.default_rng(10), 1, 25)
    for offset in range(9):
        for n in (0, 1, 63, 64, 65, 640):
            x = base[offset : offset + n]
            assert one(x, "exact") == bits_of(sum_ref(x))[0]
            copy = x.clone()  # at an aligned address
            for variant in ("binned", "fixed_order"):
                assert one(x, variant) == one(copy, variant)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["random_patterns", "cancelling", "infinities_and_nans", "plain"])
def test_many_blocks_on_many_threads(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vector repeated to 10 MiB, which is work for two threads; its exact sum is a multiple."""
    x = family(name, dtype)[-1]
    times = (10 << 20) // x.nbytes
    exact = exact_sum(x)
    expected = round_to_bits(exact * times if isinstance(exact, Fraction) else exact, dtype)
    repeated = x.repeat(times)
    for isa in ISAS:
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for threads in (1, 3):
            assert one(repeated, "exact", threads) == expected, (isa, threads)
        assert one(repeated, "binned", 3) == one(repeated.flip(0), "binned", 2), isa


def test_the_vectors_tell_direct_from_double_rounding() -> None:
    told = {}
    for dtype in DTYPES[1:]:
        twice = torch.float32 if dtype is torch.float16 else torch.float64
        told[dtype] = [
            bits_of(sum_ref(x))
            != bits_of(torch.tensor(float(exact_sum(x)), dtype=torch.float64).to(twice).to(dtype))
            for x in family("double_rounding", dtype)
        ]
    assert all(any(differ) for differ in told.values()), told


def test_the_vectors_break_a_plain_sum() -> None:
    """The families are worth their name: fp64 additions in order get each of these wrong."""
    for name in (
        "cancelling",
        "half_way",
        "overflow_and_back",
        "ill_conditioned",
        "rising_maximum",
    ):
        wrong = [
            bits_of(x.cumsum(0)[-1:]) != bits_of(sum_ref(x)) for x in family(name, torch.float64)
        ]
        assert any(wrong), name
