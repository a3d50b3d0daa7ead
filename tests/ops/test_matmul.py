"""The public function: promises (the trio), shapes, refusals, and its place in the dispatcher."""

import itertools
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
from nondet_probe.ops import Guarantee, find, matmul, matmul_ref, variants
from nondet_probe.ops.products import exact_dot, numbers
from nondet_probe.ops.rational import FORMATS, round_to_bits

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("matmul")]
ORDERED = [v.name for v in variants("matmul") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]
FAST_ORDERED = ["splitk_ordered", "fixed_split"]
BLOCK = 256


def matrix(rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return normal(rows * columns, dtype, seed).reshape(rows, columns)


def layouts(x: Tensor) -> list[Tensor]:
    """The same matrices by rows, by columns, spread out, and beside the boundaries of vectors."""
    by_columns = x.mT.contiguous().mT
    spread = torch.stack([x, x + 1], -1)[..., 0]
    shifted = torch.cat([x.new_zeros(1), x.flatten()])[1:].reshape(x.shape)
    return [x, by_columns, spread, shifted]


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", FAST_ORDERED)
@pytest.mark.parametrize("sizes", [(130, 600, 150), (1, 5000, 70), (3, 900, 200), (90, 700, 1)])
def test_matmul_ordered_variants_are_bit_identical(
    sizes: tuple[int, int, int],
    variant: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over runs, threads 1 to 8, instruction sets and layouts."""
    m, k, n = sizes
    a, b = matrix(m, k, dtype, 1), matrix(k, n, dtype, 2)
    expected = bits_of(matmul(a, b, variant=variant, threads=1))
    for threads in (2, 2, 3, 4, 5, 6, 7, 8):
        assert bits_of(matmul(a, b, variant=variant, threads=threads)) == expected, threads
    # Every layout of one factor meets one of the other.
    for left, right in zip(layouts(a), [*layouts(b)[1:], b], strict=True):
        assert bits_of(matmul(left, right, variant=variant, threads=2)) == expected
    few = slice(0, 20)
    expected = bits_of(matmul(a, b, variant=variant)[:, few])
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for left, right in zip(layouts(a), layouts(b[:, few]), strict=True):
            assert bits_of(matmul(left, right, variant=variant, threads=2)) == expected, isa


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_exact_is_bit_identical(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = matrix(20, 300, dtype, 1), matrix(300, 19, dtype, 2)
    expected = bits_of(matmul(a, b, variant="exact", threads=1))
    for threads in (2, 3, 8):
        assert bits_of(matmul(a, b, variant="exact", threads=threads)) == expected
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for left, right in zip(layouts(a), reversed(layouts(b)), strict=True):
            assert bits_of(matmul(left, right, variant="exact")) == expected, isa


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_rows_do_not_depend_on_each_other(variant: str, dtype: torch.dtype) -> None:
    """Nor do columns: what is batch-invariant is every element."""
    m, k, n = (40, 700, 45) if variant != "exact" else (12, 100, 13)
    a, b = matrix(m, k, dtype, 3), matrix(k, n, dtype, 4)
    whole = matmul(a, b, variant=variant)
    for count in (1, 2, 3, 4, 5, 12, 13, m - 1):
        rows, columns = slice(m - count, m), slice(0, min(count, n))
        for left, right in ((a, b), (a.t().contiguous().t(), b.t().contiguous().t())):
            some = matmul(left[rows], right, variant=variant)
            assert bits_of(some) == bits_of(whole[rows]), count
            some = matmul(left, right[:, columns], variant=variant)
            assert bits_of(some) == bits_of(whole[:, columns]), count


def test_rows_of_torch_depend_on_each_other() -> None:
    """What batch invariance is for: the test above would fail on torch.matmul."""
    a, b = matrix(64, 1024, torch.float32, 3), matrix(1024, 512, torch.float32, 4)
    whole = torch.matmul(a, b)
    alone = [torch.matmul(a[:count], b) for count in range(1, 9)]
    assert any(bits_of(some) != bits_of(whole[: len(some)]) for some in alone), (
        "this build of torch has batch-invariant products"
    )


def depth(variant: str, k: int) -> int:
    """Roundings on the way of one product into the result."""
    blocks = math.ceil(k / BLOCK)
    if variant == "splitk_ordered":
        return min(k, BLOCK) + math.ceil(blocks / 16) + 14
    return min(k, BLOCK) + blocks - 1


def place(bits: int, dtype: torch.dtype) -> int:
    """Bit patterns in the order of the numbers."""
    sign = FORMATS[dtype].sign
    return -(bits & ~sign) if bits & sign else bits


class Bounds:
    """Of registry.Variant.error_bound, for one element; a and b are 1-D."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.dtype, self.k = a.dtype, len(a)
        exact = exact_dot(numbers(a), numbers(b))
        magnitudes = exact_dot(numbers(a.abs()), numbers(b.abs()))
        assert isinstance(exact, Fraction)
        assert isinstance(magnitudes, Fraction)
        self.exact, self.magnitudes = exact, magnitudes

    def error(self, variant: str) -> Fraction:
        if variant == "exact":
            return Fraction(0)
        wide = self.dtype is torch.float64
        relative = depth(variant, self.k) * Fraction(2) ** (-53 if wide else -24)
        least = Fraction(2) ** (-1075 if wide else -150)
        return relative / (1 - relative) * self.magnitudes + self.k * least

    def hold(self, bits: int, variant: str) -> bool:
        error = self.error(variant)
        low, high = (round_to_bits(self.exact + change, self.dtype) for change in (-error, error))
        return place(low, self.dtype) <= place(bits, self.dtype) <= place(high, self.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_variants_are_within_their_bound(dtype: torch.dtype) -> None:
    for k in (1, 2, 100, 257, 4500):
        a, b = matrix(2, k, dtype, k), matrix(k, 2, dtype, k + 1)
        for left, right in ((a, b), (a.abs(), b.abs())):
            results = {v: matmul(left, right, variant=v, threads=2) for v in VARIANTS}
            for i, j in ((0, 0), (1, 1)):
                bounds = Bounds(left[i], right[:, j])
                for variant, result in results.items():
                    assert bounds.hold(bits_of(result[i, j])[0], variant), (variant, k, i, j)


def test_the_check_of_bounds_can_fail() -> None:
    a, b = matrix(1, 3000, torch.float32, 5), matrix(3000, 1, torch.float32, 6)
    bounds = Bounds(a[0], b[:, 0])
    for variant in VARIANTS:
        bits = bits_of(matmul(a, b, variant=variant))[0]
        assert bounds.hold(bits, variant)
        assert not bounds.hold(bits + 100_000, variant)


def distinct(compute: Callable[[], tuple[int, ...]], enough: int, most: int) -> int:
    """How many different results at most `most` calls gave; stops at `enough`."""
    seen: set[tuple[int, ...]] = set()
    for _ in range(most):
        seen.add(compute())
        if len(seen) >= enough:
            break
    return len(seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matmul_atomic_is_seen_to_vary(dtype: torch.dtype) -> None:
    a, b = matrix(32, 100_000, dtype, 7), matrix(100_000, 32, dtype, 8)
    seen = distinct(
        lambda: tuple(bits_of(matmul(a, b, variant="splitk_atomic", threads=2))), 2, 500
    )
    assert seen >= 2, (
        "500 atomic products on 2 threads gave the same bits; "
        f"this process may run on {len(os.sched_getaffinity(0))} processors"
    )
    for variant, threads in (("splitk_atomic", 1), ("splitk_ordered", 2), ("fixed_split", 2)):
        assert (
            distinct(
                lambda v=variant, t=threads: tuple(bits_of(matmul(a, b, variant=v, threads=t))),
                2,
                10,
            )
            == 1
        )


# ---- shapes, defaults, refusals

SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (7, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((6, 5, 2, 3), (6, 5, 3, 1)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((0,), (0,)),
    ((0, 2, 3), (3, 4)),
    ((5, 2, 3), (3, 0)),
    ((0, 2, 3), (1, 3, 4)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_are_those_of_torch(
    variant: str, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    """Of whole numbers, whose products no rounding touches."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-9, 9, left, generator=generator).float()
    b = torch.randint(-9, 9, right, generator=generator).float()
    result = matmul(a, b, variant=variant)
    expected = torch.matmul(a, b)
    assert result.shape == expected.shape
    assert torch.equal(result, expected)
    assert result.is_contiguous()
    if result.numel() and result.numel() < 100:
        assert bits_of(result) == bits_of(matmul_ref(a, b))


def test_repeated_rows_and_columns_are_read_as_they_are() -> None:
    row, column = normal(300, torch.float32, 1), normal(300, torch.float32, 2)
    a, b = row.expand(20, 300), column.unsqueeze(1).expand(300, 30)
    expected = bits_of(matmul(row, column))[0]
    assert set(bits_of(matmul(a, b))) == {expected}
    batched = matmul(a.expand(3, 20, 300), b)
    assert set(bits_of(batched)) == {expected}
    flipped = matmul(a.as_strided((20, 300), (0, 1)), b)
    assert bits_of(flipped) == bits_of(matmul(a.contiguous(), b.contiguous()))


def test_a_batch_has_the_bits_of_its_members() -> None:
    a, b = normal(3 * 2 * 500, torch.float32, 1), normal(3 * 500 * 8, torch.float32, 2)
    a, b = a.reshape(3, 1, 2, 500), b.reshape(3, 500, 8)
    for variant in FAST_ORDERED:
        whole = matmul(a, b, variant=variant, threads=2)
        for i, j in itertools.product(range(3), range(3)):
            alone = matmul(a[i, 0], b[j], variant=variant)
            assert bits_of(whole[i, j]) == bits_of(alone)


def test_splitk_ordered_has_the_bits_of_fixed_split_up_to_16_blocks() -> None:
    a, b = matrix(6, 4097, torch.float32, 1), matrix(4097, 7, torch.float32, 2)
    same, other = (
        [bits_of(matmul(a[:, :k], b[:k], variant=variant)) for variant in FAST_ORDERED]
        for k in (4096, 4097)
    )
    assert same[0] == same[1]
    assert other[0] != other[1]


def test_the_default_is_fixed_split() -> None:
    a, b = matrix(9, 2000, torch.float32, 1), matrix(2000, 9, torch.float32, 2)
    assert bits_of(matmul(a, b)) == bits_of(matmul(a, b, variant="fixed_split"))
    assert bits_of(matmul(a, b)) != bits_of(matmul(a, b, variant="exact"))


def test_a_lazily_negated_tensor_is_read_negated() -> None:
    lazy = torch.conj(torch.complex(torch.ones(2, 2), torch.full((2, 2), 3.0))).imag
    assert lazy.is_neg()
    assert matmul(lazy, torch.eye(2)).tolist() == [[-3.0, -3.0], [-3.0, -3.0]]


def test_factors_are_left_alone_and_not_handed_back() -> None:
    a = torch.ones(1, 1)
    for variant in VARIANTS:
        result = matmul(a, a, variant=variant)
        result.zero_()
        assert a.item() == 1.0


REFUSALS = [
    ((2, 3), (3, 2), {"variant": "exakt"}, UnknownNameError, "Known: exact, fixed_split, splitk"),
    ((2, 3), (4, 2), {}, ValueError, r"shapes \(2, 3\) and \(4, 2\): the last dimension of a"),
    ((3,), (4,), {}, ValueError, "must be equal"),
    ((2, 2, 3), (5, 3, 2), {}, ValueError, "must be equal"),
    ((), (3,), {}, ValueError, "one dimension or more"),
    ((2, 3), (3, 2), {"threads": 0}, UsageError, "threads must be at least 1, got 0"),
]


@pytest.mark.parametrize(("left", "right", "keywords", "error", "message"), REFUSALS)
def test_refusals(
    left: tuple[int, ...],
    right: tuple[int, ...],
    keywords: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        matmul(torch.ones(left), torch.ones(right), **keywords)


def test_refusals_of_tensors() -> None:
    x = torch.ones(2, 2)
    for other, message in (
        (x.int(), "one dtype"),
        (x.double(), "one dtype, got torch.float32 and torch.float64"),
        (x.to("meta"), "on cpu or cuda, got one on meta"),
        (x.to_sparse(), "got layout torch.sparse_coo"),
        ([[1.0]], "takes two torch.Tensors, got list"),
    ):
        with pytest.raises(TypeError, match=message):
            matmul(x, other)
    with pytest.raises(TypeError, match=r"takes float64, .*; got int32"):
        matmul(x.int(), x.int())
    freed = torch.zeros(2, 2)
    freed.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="no memory behind it"):
        matmul(x, freed)


def test_an_unknown_instruction_set_lists_those_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", "mmx")
    with pytest.raises(UsageError, match=r"NONDET_PROBE_ISA=mmx: .* has portable"):
        matmul(torch.ones(2, 2), torch.ones(2, 2))


def test_every_variant_says_what_it_takes() -> None:
    for variant in VARIANTS:
        assert find("matmul", variant).dtypes == tuple(DTYPES)


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    a = matrix(3, 20, dtype, 1).requires_grad_()
    b = matrix(20, 8, dtype, 2).reshape(2, 20, 4).requires_grad_()
    with warnings.catch_warnings():
        # torch 2.14's own checker reads .grad of tensors that are no leaves, and warns of itself.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        torch.library.opcheck(torch.ops.nondet_probe.matmul.default, (a, b, variant, 2))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 4), (4, 2)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 2)),
        ((2, 1, 1, 4), (3, 4, 2)),
        ((3, 4), (4,)),
    ],
)
def test_gradients(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a = normal(math.prod(left), torch.float64, 1).reshape(left).requires_grad_()
    b = normal(math.prod(right), torch.float64, 2).reshape(right).requires_grad_()
    for variant in VARIANTS:
        # `splitk_atomic` adds one block at most here, which leaves nothing to chance: tolerance 0.
        assert torch.autograd.gradcheck(
            lambda x, y, v=variant: matmul(x, y, variant=v), (a, b), nondet_tol=0.0
        )
    assert torch.autograd.gradgradcheck(matmul, (a, b))


def test_gradients_of_a_repeated_factor_keep_the_promise() -> None:
    """They are sums over the batch too, in one product: `exact` rounds them once."""
    a = normal(4 * 3 * 5, torch.float32, 1).reshape(4, 3, 5).requires_grad_()
    b = normal(2 * 5 * 2, torch.float32, 2).reshape(2, 1, 5, 2).requires_grad_()
    upstream = normal(2 * 4 * 3 * 2, torch.float32, 3).reshape(2, 4, 3, 2)
    result = matmul(a, b, variant="exact")
    of_a, of_b = torch.autograd.grad(result, (a, b), upstream)
    for i in range(4):
        left = upstream[:, i].permute(1, 0, 2).reshape(3, 4)
        right = b.detach()[:, 0].permute(0, 2, 1).reshape(4, 5)
        assert bits_of(of_a[i]) == bits_of(matmul_ref(left, right))
    for i in range(2):
        left = a.detach().permute(2, 0, 1).reshape(5, 12)
        assert bits_of(of_b[i, 0]) == bits_of(matmul_ref(left, upstream[i].reshape(12, 2)))


def test_gradients_do_not_depend_on_threads() -> None:
    a, b = matrix(50, 300, torch.float32, 1), matrix(300, 70, torch.float32, 2)
    seen = set()
    for threads in (1, 2, 3, 8):
        left, right = a.clone().requires_grad_(), b.clone().requires_grad_()
        (matmul(left, right, threads=threads) ** 2).sum().backward()
        seen.add((tuple(bits_of(left.grad)), tuple(bits_of(right.grad))))
    assert len(seen) == 1


def test_dispatch_modes_see_it() -> None:
    seen: list[str] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Recorder():
        matmul(torch.ones(2, 2), torch.ones(2, 2))
    assert "nondet_probe.matmul.default" in seen


def test_compiled_code_gives_the_same_bits() -> None:
    a, b = matrix(5, 300, torch.float32, 1), matrix(300, 7, torch.float32, 2)
    for variant in ORDERED:
        compiled = torch.compile(
            lambda x, y, v=variant: matmul(x * 3, y, variant=v),
            backend="aot_eager",
            fullgraph=True,
        )
        assert bits_of(compiled(a, b)) == bits_of(matmul(a * 3, b, variant=variant))


# torch's own forward mode scripts its formulas on first use, and says that this is deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_is_refused_and_not_taken_for_zero() -> None:
    x = torch.ones(2, 2)
    with pytest.raises(TypeError, match="no forward-mode derivative"):
        torch.func.jvp(matmul, (x, x), (x, x))
