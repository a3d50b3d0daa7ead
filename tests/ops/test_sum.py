"""The public function: promises (the trio), refusals, and its place in torch's dispatcher."""

import math
import os
import warnings
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from generators import bits_of, normal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, find, sum_ref, variants
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("sum")]
ORDERED = [v.name for v in variants("sum") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]
# Enough for two and a half of the pieces that threads take at a time.
MANY_BYTES = 10 << 20


def one(x: Tensor, variant: str, threads: int | None = 1) -> int:
    return bits_of(sum_all(x, variant=variant, threads=threads))[0]


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_sum_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over runs, threads 1 to 8 and instruction sets, on a sum that feels its order."""
    x = normal(MANY_BYTES // dtype.itemsize + 77, dtype, 1)
    expected = one(x, variant)
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        assert one(x, variant) == expected, isa
    monkeypatch.delenv("NONDET_PROBE_ISA")
    for threads in (2, 2, 2, 3, 4, 5, 6, 7, 8):
        assert one(x, variant, threads) == expected, threads


def relative_unit(x: Tensor) -> Fraction:
    return Fraction(2) ** (-53 if x.dtype is torch.float64 else -24)


def magnitudes(x: Tensor) -> Fraction:
    total = exact_sum(x.abs())
    assert isinstance(total, Fraction)
    return total


def rounding_errors(depth: int, x: Tensor) -> Fraction:
    """d u/(1 - d u) sum|x|: the error of `depth` additions on the way of every element."""
    relative = depth * relative_unit(x)
    return relative / (1 - relative) * magnitudes(x)


def chunk_rounds(x: Tensor) -> int:
    return math.ceil(math.log2(math.ceil(x.numel() / 4096)))


def grid_error(x: Tensor) -> Fraction:
    bits = 80 if x.dtype is torch.float64 else 40
    return x.numel() * Fraction(x.abs().max().item()) * Fraction(2) ** -bits


# The bounds of registry.Variant.error_bound, before the rounding to the dtype.
BOUNDS: dict[str, Callable[[Tensor], Fraction]] = {
    "atomic": lambda x: rounding_errors(20 + math.ceil(x.numel() / 1024), x),
    "two_pass": lambda x: rounding_errors(71 + chunk_rounds(x), x),  # on two threads
    "fixed_order": lambda x: rounding_errors(69 + chunk_rounds(x), x),
    "binned": grid_error,
    "exact": lambda x: Fraction(0),
    "kahan": lambda x: 3 * relative_unit(x) * magnitudes(x),
    "pairwise": lambda x: rounding_errors(12 + chunk_rounds(x), x),
}


def place(bits: int, dtype: torch.dtype) -> int:
    """Bit patterns in the order of the numbers."""
    sign = FORMATS[dtype].sign
    return -(bits & ~sign) if bits & sign else bits


def within(bits: int, x: Tensor, bound: Fraction) -> bool:
    """Whether these are the bits of a number within `bound` of the exact sum, rounded once."""
    exact = exact_sum(x)
    assert isinstance(exact, Fraction)
    low, high = (round_to_bits(exact + error, x.dtype) for error in (-bound, bound))
    return place(low, x.dtype) <= place(bits, x.dtype) <= place(high, x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_sum_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    for n in (1, 2, 64, 100, 4096, 5000, 20_000):
        for x in (normal(n, dtype, n), normal(n, dtype, n).abs()):
            assert within(one(x, variant, 2), x, BOUNDS[variant](x)), n


def test_the_check_of_bounds_can_fail() -> None:
    x = normal(5000, torch.float32, 5)
    for variant in VARIANTS:
        beyond = one(x, variant) + 2000
        assert not within(beyond, x, BOUNDS[variant](x))


def distinct(compute: Callable[[], int], enough: int, most: int) -> set[int]:
    """Different results of at most `most` calls; stops at `enough`."""
    seen: set[int] = set()
    for _ in range(most):
        seen.add(compute())
        if len(seen) >= enough:
            break
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [2, 3])
def test_sum_atomic_is_seen_to_vary(threads: int, dtype: torch.dtype) -> None:
    # Long enough for the threads to meet on a busy machine too.
    x = normal(1_000_000, dtype, 2).repeat(20)
    seen = distinct(lambda: one(x, "atomic", threads), enough=2, most=500)
    assert len(seen) >= 2, (
        f"500 atomic sums of 20 million elements on {threads} threads gave the same bits; "
        f"this process may run on {len(os.sched_getaffinity(0))} processors"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sum_two_pass_follows_the_threads_and_nothing_else(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(600_000, dtype, 5)
    expected = {threads: one(x, "two_pass", threads) for threads in range(1, 9)}
    assert len(set(expected.values())) > 2  # its guarantee ends at another launch
    assert expected[1] == one(x, "fixed_order")
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for _ in range(3):
            for threads, bits in expected.items():
                assert one(x, "two_pass", threads) == bits, (isa, threads)


def test_sum_atomic_on_one_thread_does_not_vary() -> None:
    x = normal(100_000, torch.float32, 2)
    assert len(distinct(lambda: one(x, "atomic", 1), enough=2, most=50)) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["binned", "exact"])
def test_sum_of_any_order_is_the_same(variant: str, dtype: torch.dtype) -> None:
    x = torch.cat([normal(3000, dtype, 3), normal(3000, dtype, 4) * 2.0**-14])
    expected = one(x, variant)
    orders = [torch.arange(6000).flip(0), x.argsort(), x.abs().argsort(descending=True)]
    orders += [torch.randperm(6000, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    for order in orders:
        assert one(x[order], variant) == expected
    if dtype is torch.float32:  # the same orders do tell on a sum that depends on them
        assert len({one(x[order], "fixed_order") for order in orders}) > 1


# ---- shapes, defaults, refusals


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes(variant: str, dtype: torch.dtype) -> None:
    for shape in ((), (1,), (3, 4), (2, 0, 5), (0,)):
        x = torch.ones(shape, dtype=dtype)
        result = sum_all(x, variant=variant)
        assert result.shape == ()
        assert result.dtype == dtype
        assert bits_of(result) == bits_of(torch.tensor(float(x.numel()), dtype=dtype))


def test_the_default_is_exact() -> None:
    x = torch.tensor([1e8, -1e8, 1e-8])
    assert bits_of(sum_all(x)) == bits_of(sum_ref(x)) == [one(x, "exact")]
    assert one(x, "fixed_order") == 0


def test_a_lazily_negated_tensor_is_read_negated() -> None:
    lazy = torch.conj(torch.complex(torch.tensor([1.0]), torch.tensor([2.0]))).imag
    assert lazy.is_neg()
    assert lazy.is_contiguous()
    assert sum_all(lazy).item() == -2.0


def test_threads_default_to_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []

    class Recorder:
        @staticmethod
        def sum(*given: object) -> None:
            taken.append(given[5])

    monkeypatch.setattr("nondet_probe.ops.via_c.sums._C", Recorder)
    sum_all(torch.ones(3))
    sum_all(torch.ones(3), threads=5)
    assert taken == [torch.get_num_threads(), 5]


REFUSALS = [
    (lambda: torch.ones(3), {"variant": "exakt"}, UnknownNameError, "Known: atomic, binned, exact"),
    (lambda: torch.ones(3, dtype=torch.int32), {}, TypeError, "takes float64, .*; got int32"),
    (lambda: torch.ones(3, dtype=torch.complex64), {}, TypeError, "got complex64; convert"),
    (lambda: torch.ones(3, 4), {"dim": 2}, IndexError, "dim 2 is out of range for a tensor of 2"),
    (lambda: torch.ones(3, 4), {"dim": (0, -3)}, IndexError, "dim -3 is out of range"),
    (lambda: torch.ones(()), {"dim": 1}, IndexError, "dim 1 is out of range for a tensor of 0"),
    (lambda: torch.ones(3, 4), {"dim": (1, -1)}, UsageError, r"dim -1 is given twice in dim=\(1"),
    (lambda: torch.ones(3).to_sparse(), {}, TypeError, "got layout torch.sparse_coo; pass x.to"),
    (lambda: torch.ones(3, device="meta"), {}, TypeError, "on cpu or cuda, got one on meta"),
    (lambda: torch.ones(3), {"threads": 0}, UsageError, "threads must be at least 1, got 0"),
]


@pytest.mark.parametrize(("x", "keywords", "error", "message"), REFUSALS)
def test_refusals(
    x: Callable[[], Tensor],
    keywords: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        sum_all(x(), **keywords)


def test_an_unknown_instruction_set_lists_those_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", "mmx")
    with pytest.raises(UsageError, match=r"NONDET_PROBE_ISA=mmx: .* has portable"):
        sum_all(torch.ones(3))


def test_every_variant_says_what_it_takes() -> None:
    for variant in VARIANTS:
        assert find("sum", variant).dtypes == tuple(DTYPES)
    assert set(BOUNDS) == set(VARIANTS)


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x = normal(300, dtype, 6).requires_grad_()
    with warnings.catch_warnings():
        # torch 2.14's own checker reads .grad of tensors that are no leaves, and warns of itself.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        torch.library.opcheck(torch.ops.nondet_probe.sum.default, (x, variant, 2))


def test_gradients() -> None:
    x = normal(12, torch.float64, 7).reshape(3, 4).requires_grad_()
    for variant in ORDERED:
        assert torch.autograd.gradcheck(lambda y, v=variant: sum_all(y, variant=v), (x,))
        assert torch.autograd.gradgradcheck(lambda y, v=variant: sum_all(y * y, variant=v), (x,))


def test_dispatch_modes_see_it() -> None:
    seen: list[str] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x = torch.ones(3)
    with Recorder():
        sum_all(x)
    assert seen == ["nondet_probe.sum.default"]


def test_compiled_code_gives_the_same_bits() -> None:
    x = normal(5000, torch.float32, 8)
    for variant in ORDERED:
        compiled = torch.compile(
            lambda y, v=variant: sum_all(y * 3, variant=v), backend="aot_eager", fullgraph=True
        )
        assert bits_of(compiled(x)) == [one(x * 3, variant)]


def test_a_tensor_without_memory_is_refused() -> None:
    freed = torch.zeros(3)
    freed.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="no memory behind it"):
        sum_all(freed)


# torch's own forward mode scripts its formulas on first use, and says that this is deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_is_refused_and_not_taken_for_zero() -> None:
    x = torch.ones(3)
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(TypeError, match="no forward-mode derivative"),
    ):
        sum_all(torch.autograd.forward_ad.make_dual(x, x))
    with pytest.raises(TypeError, match="no forward-mode derivative"):
        torch.func.jvp(sum_all, (x,), (x,))


@pytest.mark.parametrize("given", [[1.0, 2.0], None, 3.0])
def test_only_tensors_are_taken(given: object) -> None:
    with pytest.raises(TypeError, match=r"sum takes a torch\.Tensor, got"):
        sum_all(given)  # type: ignore[arg-type]
