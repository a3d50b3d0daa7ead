"""bincount: promises (the trio), counts, refusals, torch's dispatcher."""

import platform
from collections.abc import Callable

import pytest
import torch
from cells import changed_modes, check_operator, distinct, indices, scatter_bound, within
from generators import FAMILIES, bits_of, family, from_bits, normal
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, bincount, bincount_ref, sum_ref, variants
from nondet_probe.ops.rational import FORMATS

DTYPES = [torch.float64, torch.float32]
VARIANTS = [variant.name for variant in variants("bincount")]
ORDERED = [v.name for v in variants("bincount") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over runs, threads 1 to 8 and instruction sets, on sums that feel their order."""
    n = 140_000
    weights = normal(n, dtype, 1)
    patterns = indices(n, 1000)
    for name in ("all equal", "zipf"):
        index = patterns[name]
        expected = bits_of(bincount(index, weights, variant=variant, threads=1))
        for threads in (2, 2, 3, 4, 5, 6, 7, 8):
            found = bits_of(bincount(index, weights, variant=variant, threads=threads))
            assert found == expected, (name, threads)
        for isa in _C.available_isas():
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            found = bits_of(bincount(index, weights, variant=variant, threads=2))
            assert found == expected, (name, isa)
        monkeypatch.delenv("NONDET_PROBE_ISA")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    n, bins = 4000, 40
    weights = normal(n, dtype, 5)
    for name, index in indices(n, bins).items():
        found = bincount(index, weights, variant=variant, threads=2)
        for bin in set(index.tolist()):
            addends = weights[index == bin]
            bound = scatter_bound(variant, addends, weights)
            assert within(found[bin], addends, bound), (name, bin)


def test_the_check_of_bounds_can_fail() -> None:
    weights = normal(5000, torch.float32, 5)
    for variant in VARIANTS:
        found = bincount(torch.zeros(5000, dtype=torch.int64), weights, variant=variant)
        beyond = from_bits([bits_of(found)[0] + 400_000], weights.dtype)
        assert not within(beyond, weights, scatter_bound(variant, weights, weights))


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_is_seen_to_vary(dtype: torch.dtype) -> None:
    n = 1_000_000
    index, weights = torch.arange(n) % 3, normal(n, dtype, 2)
    compute = lambda: bincount(index, weights, variant="atomic", threads=2)  # noqa: E731
    assert distinct(compute, enough=2, most=500) == 2
    alone = lambda: bincount(index, weights, variant="atomic", threads=1)  # noqa: E731
    assert distinct(alone, enough=2, most=5) == 1


@pytest.mark.parametrize("variant", ["fixed_point", "exact"])
def test_any_order_gives_the_same(variant: str) -> None:
    n = 5000
    index, weights = indices(n, 50)["zipf"], normal(n, torch.float32, 3)
    expected = bits_of(bincount(index, weights, variant=variant))
    differ = False
    for seed in range(10):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        found = bincount(index[order], weights[order], variant=variant)
        assert bits_of(found) == expected
        in_order = bincount(index[order], weights[order], variant="ordered")
        differ |= bits_of(in_order) != bits_of(bincount(index, weights, variant="ordered"))
    assert differ


# ---- exact


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_correctly_rounded(name: str, dtype: torch.dtype) -> None:
    """Every tensor of a family is a bin; elements of all bins take turns."""
    vectors = family(name, dtype)
    if not vectors:
        return
    index = torch.cat([torch.full((len(v),), bin) for bin, v in enumerate(vectors)])
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(1))
    found = bincount(index[order], torch.cat(vectors)[order], len(vectors), threads=2)
    # Bins start at +0, so that none is -0.
    expected = [bits_of(sum_ref(torch.cat([v, v.new_zeros(1)])))[0] for v in vectors]
    assert bits_of(found) == expected


def test_exact_is_the_reference() -> None:
    for dtype in (*DTYPES, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.bool):
        weights = (normal(300, torch.float64, 4) * 3).to(dtype)
        for index in indices(300, 20).values():
            found, expected = bincount(index, weights, 25), bincount_ref(index, weights, 25)
            assert found.dtype == expected.dtype == torch.bincount(index, weights).dtype
            assert bits_of(found) == bits_of(expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_specials(variant: str) -> None:
    form = FORMATS[torch.float32]
    inf, nan = float("inf"), float("nan")
    index = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6])
    weights = torch.tensor([inf, 1.0, inf, -inf, -inf, 2.0, -nan, 1.0, -0.0, 3e38, 1e-40])
    found = bits_of(bincount(index, weights, variant=variant))
    assert found[:5] == [
        form.infinity,
        form.quiet_nan,
        form.infinity | form.sign,
        form.quiet_nan,
        0,
    ]
    assert found[5] == bits_of(weights[9:10])[0]


# ---- counts


def test_counts_are_those_of_torch() -> None:
    for n in (0, 1, 5, 1000, 200_000):
        for bins in (1, 5000):
            for name, index in indices(n, bins).items():
                expected = torch.bincount(index)
                for threads in (1, 3):
                    found = bincount(index, threads=threads)
                    assert found.dtype is torch.int64
                    assert torch.equal(found, expected), (name, n, bins)
    for variant in VARIANTS:
        assert torch.equal(bincount(index, variant=variant), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_other_integers(dtype: torch.dtype) -> None:
    index = indices(1000, 100)["zipf"].to(dtype)
    apart = torch.stack([index, index], 1)[:, 1]
    assert torch.equal(bincount(index), torch.bincount(index))
    assert torch.equal(bincount(apart), torch.bincount(index))
    weights = normal(1000, torch.float64, 9)
    apart_weights = torch.stack([weights, weights], 1)[:, 1]
    assert bits_of(bincount(apart, apart_weights)) == bits_of(bincount_ref(index, weights))


def test_sizes() -> None:
    none = torch.tensor([], dtype=torch.int64)
    for variant in VARIANTS:
        assert bincount(none, variant=variant).shape == (0,)
        assert bincount(none, minlength=3, variant=variant).tolist() == [0, 0, 0]
        # torch gives integers here; a compiler has to know before it sees the numbers.
        of_weights = bincount(none, torch.tensor([]), 2, variant=variant)
        assert of_weights.tolist() == [0.0, 0.0]
        assert of_weights.dtype is torch.float32
        assert bincount(torch.tensor([2]), minlength=2, variant=variant).tolist() == [0, 0, 1]


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the modes of x86")
@pytest.mark.parametrize("dtype", DTYPES)
def test_modes_of_the_processor_change_nothing(dtype: torch.dtype) -> None:
    weights = torch.cat([from_bits([1, 2, 3] * 10_000, dtype), normal(30_000, dtype, 12)])
    index = torch.cat([indices(30_000, 50)["zipf"], indices(30_000, 50)["uniform"] + 50])

    whole = torch.arange(60_000) + (1 << 60)
    narrow = from_bits([1, 2, 3] * 20_000, torch.bfloat16)

    def compute() -> list[int]:
        return [
            bits
            for variant in ORDERED
            for given in (weights, whole, narrow)
            for bits in bits_of(bincount(index, given, variant=variant, threads=2))
        ]

    expected = compute()
    for mode, found in changed_modes(compute).items():
        assert found == expected, mode


INPUT, W = torch.tensor([0, 3]), torch.ones(2)
REFUSALS: list[tuple[Callable[[], Tensor], type[Exception], str]] = [
    (lambda: bincount(INPUT, variant="exakt"), UnknownNameError, "did you mean 'exact'"),
    (lambda: bincount([0]), TypeError, "takes a torch.Tensor, got list"),
    (lambda: bincount(INPUT.float()), TypeError, "takes integers, got torch.float32"),
    (lambda: bincount(INPUT.bool()), TypeError, "takes integers, got torch.bool"),
    (lambda: bincount(INPUT.reshape(1, 2)), UsageError, r"one dimension, got shape \(1, 2\)"),
    (lambda: bincount(INPUT, W[:1]), UsageError, r"the shape of input, \(2,\), got \(1,\)"),
    (lambda: bincount(INPUT, W.to(torch.complex64)), TypeError, "got complex64; convert"),
    (lambda: bincount(INPUT, minlength=-1), UsageError, "minlength must be at least 0, got -1"),
    (lambda: bincount(INPUT, threads=0), UsageError, "threads must be at least 1, got 0"),
    (lambda: bincount(INPUT, W, threads=0), UsageError, "threads must be at least 1, got 0"),
    (lambda: bincount(INPUT.to("meta")), TypeError, "on cpu or cuda, got one on meta"),
    (
        lambda: bincount(torch.tensor([1, 0, -7, -8])),
        IndexError,
        "index -7 at position 2 is negative",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    weights = normal(30, dtype, 6).requires_grad_()
    check_operator("bincount", (indices(30, 9)["zipf"], weights, 3, variant, 2))


def test_opcheck_of_counts() -> None:
    check_operator("bincount", (indices(30, 9)["zipf"], None, 0, "exact", 2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    """30 elements are work for one thread: even `atomic` differs by nothing (nondet_tol=0)."""
    index, weights = indices(30, 9)["zipf"], normal(30, torch.float64, 6).requires_grad_()
    forward = lambda w: bincount(index, w, variant=variant)  # noqa: E731
    assert torch.autograd.gradcheck(forward, (weights,), nondet_tol=0.0)
    assert torch.autograd.gradgradcheck(lambda w: forward(w * w), (weights,), nondet_tol=0.0)


def test_the_gradient_has_the_dtype_of_the_weights() -> None:
    weights = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    bincount(INPUT, weights).backward(torch.tensor([2.0, 0.0, 0.0, 3.0], dtype=torch.float64))
    assert weights.grad is not None
    assert weights.grad.dtype is torch.bfloat16
    assert weights.grad.tolist() == [2.0, 3.0]


def test_compiled_code_gives_the_same_bits() -> None:
    index, weights = indices(5000, 9)["zipf"], normal(5000, torch.float32, 8)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for variant in ORDERED:
            compiled = torch.compile(
                lambda w, v=variant: bincount(index, w * 3, variant=v),
                backend="aot_eager",
                fullgraph=True,
            )
            expected = bincount(index, weights * 3, variant=variant)
            assert bits_of(compiled(weights)) == bits_of(expected)
