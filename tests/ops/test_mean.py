"""`mean`: the variants of `sum`, divided, with one rounding."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import FAMILIES, bits_of, family, from_bits, normal

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError
from nondet_probe.ops import Guarantee, find, mean, mean_ref, variants
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits, tensor_of_bits

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("mean")]
ORDERED = [v.name for v in variants("mean") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_the_reference(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for (number, x), isa in zip(
        enumerate(family(name, dtype)), itertools.cycle(_C.available_isas()), strict=False
    ):
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        assert bits_of(mean(x)) == bits_of(mean_ref(x)), (number, isa)


@pytest.mark.parametrize("dtype", DTYPES)
def test_quotients_at_the_edges_of_the_format(dtype: torch.dtype) -> None:
    """Ties, subnormal results, and quotients that vanish but keep their sign."""
    form = FORMATS[dtype]
    zero, least, negative = [0], [1], [form.sign | 1]
    for patterns in (
        least + zero,  # half of the smallest subnormal: to even, 0
        [3, 0],
        least * 2 + zero,
        negative + zero,
        negative * 2 + zero,
        negative + zero * 70_000,
        [form.infinity - 1] * 3,
        [form.infinity - 1, form.infinity - 1, form.infinity - 2],
        [form.sign] * 5,
    ):
        x = from_bits(patterns, dtype)
        for variant in ("exact", "binned"):
            assert bits_of(mean(x, variant=variant)) == bits_of(mean_ref(x)), patterns[:3]


def test_a_mean_of_sums_divides_a_rounded_sum_and_this_one_does_not() -> None:
    """The sum overflows or is rounded; the mean of it is neither."""
    x = torch.full((3,), torch.finfo(torch.float32).max)
    assert (sum_all(x) / 3).item() == math.inf
    assert mean(x).item() == torch.finfo(torch.float32).max
    twice = [
        n
        for n in range(3, 60)
        if bits_of(sum_all(normal(n, torch.float32, n)) / n)
        != bits_of(mean(normal(n, torch.float32, n)))
    ]
    assert twice


@pytest.mark.parametrize("dtype", DTYPES)
def test_floating_point_sums_are_divided_in_fp64(dtype: torch.dtype) -> None:
    for n in (1, 7, 100, 5000):
        x = normal(n, dtype, n)
        wide = x if dtype is torch.float64 else x.float()  # the sum before it is rounded
        for variant in ("fixed_order", "pairwise", "two_pass"):
            total = np.float64(sum_all(wide, variant=variant, threads=1).item())
            expected = tensor_of_bits(round_to_bits(Fraction(float(total / n)), dtype), dtype)
            assert bits_of(mean(x, variant=variant, threads=1)) == bits_of(expected), (variant, n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal((2 << 20) // dtype.itemsize + 77, dtype, 1)
    expected = bits_of(mean(x, variant=variant, threads=1))
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for threads in (1, 2, 5):
            assert bits_of(mean(x, variant=variant, threads=threads)) == expected, (isa, threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_near_the_exact_mean(variant: str, dtype: torch.dtype) -> None:
    """By the loosest of the bounds: d additions, the division, and the rounding to the dtype."""
    for n in (1, 64, 5000):
        x = normal(n, dtype, n).abs()
        exact = exact_sum(x)
        assert isinstance(exact, Fraction)
        unit = Fraction(2) ** (-53 if dtype is torch.float64 else -24)
        bound = exact * 80 * unit
        low, high = (round_to_bits((exact + error) / n, dtype) for error in (-bound, bound))
        assert low <= bits_of(mean(x, variant=variant, threads=2))[0] <= high, n


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_mean_of_nothing_is_nan(variant: str) -> None:
    for dtype in DTYPES:
        nan = FORMATS[dtype].quiet_nan
        assert bits_of(mean(torch.empty(0, dtype=dtype), variant=variant)) == [nan]
        assert bits_of(mean(torch.empty(2, 0, dtype=dtype), 1, variant=variant)) == [nan] * 2


def test_mean_atomic_is_seen_to_vary() -> None:
    x = normal(1_000_000, torch.float64, 2).repeat(20)
    seen = set()
    for _ in range(500):
        seen.update(bits_of(mean(x, variant="atomic", threads=2)))
        if len(seen) > 1:
            break
    assert len(seen) > 1


@pytest.mark.parametrize("dim", [None, 0, 1, (0, 1), (0, 2), -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_shapes_and_gradients(dim: int | tuple[int, ...] | None, keepdim: bool) -> None:
    x = normal(24, torch.float64, 7).reshape(2, 3, 4).requires_grad_()
    expected = torch.mean(x, dim, keepdim)
    for variant in ORDERED:
        result = mean(x, dim, keepdim, variant=variant)
        assert result.shape == expected.shape
    (ours,) = torch.autograd.grad(mean(x, dim, keepdim).sum(), x)
    (theirs,) = torch.autograd.grad(expected.sum(), x)
    assert bits_of(ours) == bits_of(theirs)
    assert torch.autograd.gradcheck(lambda y: mean(y, dim, keepdim), (x,))
    assert torch.autograd.gradgradcheck(lambda y: mean(y * y, dim, keepdim), (x,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x = normal(60, dtype, 6).reshape(4, 15).requires_grad_()
    torch.library.opcheck(torch.ops.nondet_probe.mean.default, (x, variant, 2))
    torch.library.opcheck(torch.ops.nondet_probe.mean_dim.default, (x, [1], False, variant, 2))


def test_compiled_code_gives_the_same_bits() -> None:
    x = normal(5000, torch.float32, 8).reshape(50, 100)
    compiled = torch.compile(lambda y: mean(y * 3, 0), backend="aot_eager", fullgraph=True)
    assert bits_of(compiled(x)) == bits_of(mean(x * 3, 0))


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="unknown variant of mean 'exakt'"):
        mean(torch.ones(3), variant="exakt")
    with pytest.raises(TypeError, match=r"mean takes a torch\.Tensor, got list"):
        mean([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"mean variant 'exact' takes float64, .*; got int64"):
        mean(torch.tensor([1, 2]))
    with pytest.raises(IndexError, match="dim 1 is out of range"):
        mean(torch.ones(3), 1)
    assert find("mean", "exact").guarantee is Guarantee.CORRECTLY_ROUNDED
