"""The kernels run by Triton's interpreter, on CPU tensors, against the CPU's ops: bit for bit.

Run by test_interpreted.py in a process of its own, since TRITON_INTERPRET must be set before triton
is imported. Programs run one after the other here: this shows what is computed, never a race.

Not here, by name: atomic additions of bfloat16 (the interpreter has none). Inline assembly stands
in `floats.times` alone, which multiplies plainly when interpreted; test_ahead.py reads its PTX.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from nondet_probe import ops
from nondet_probe.kernels import order as order_kernels
from nondet_probe.kernels import softmax as softmax_kernels
from nondet_probe.ops import backends
from nondet_probe.ops.registry import Guarantee
from nondet_probe.ops.via_triton import launch as launching

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy: inf, NaN, overflow

WIDE = [torch.float64, torch.float32]
DTYPES = [*WIDE, torch.bfloat16, torch.float16]
OVER_ROWS = ["atomic", "two_pass", "fixed_order"]
Call = Callable[..., Tensor]
# test_on_device.py runs some of this on a GPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


def bits(x: Tensor) -> Tensor:
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.contiguous().view(kinds[x.element_size()])


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    numbers = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(numbers).to(dtype)


def both(call: Call, *inputs: Any) -> list[list[Tensor]]:
    """Results and gradients on the CPU, then in Triton."""
    found = []
    for backend in ("cpu", "triton"):
        given = [
            x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs
        ]
        result = call(*given, backend=backend)
        result.backward(normal(*result.shape, dtype=result.dtype, seed=7))
        found.append([result.detach(), *(x.grad for x in given if x.grad is not None)])
    return found


def different(call: Call, *inputs: Any) -> list[int]:
    """How many elements of each result and gradient have other bits."""
    pairs = zip(*both(call, *inputs), strict=True)
    return [int((bits(a) != bits(b)).sum()) for a, b in pairs]


def awkward(x: Tensor) -> Tensor:
    """Zeros of both signs, infinities, NaN, subnormals and huge numbers among the elements."""
    flat = x.clone().view(-1)
    tiny, huge = torch.finfo(x.dtype).smallest_normal / 4, torch.finfo(x.dtype).max
    odd = [0.0, -0.0, tiny, -tiny, math.inf, -math.inf, math.nan, huge, -huge]
    for i, value in enumerate(odd):
        flat[i * (flat.numel() // len(odd))] = value
    return flat.view(x.shape)


# ---- rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax(op: str, dtype: torch.dtype) -> None:
    function = getattr(ops, op)
    for shape, dim in (((5, 70), 1), ((64, 3), 0), ((2, 1), 1), ((), 0), ((0, 3), 1)):
        x = 5 * normal(*shape, dtype=dtype)
        assert different(lambda x, dim=dim, **how: function(x, dim, **how), x) == [0, 0]
    x = awkward(normal(9, 66, dtype=dtype))
    assert different(lambda x, **how: function(x, -1, **how), x) == [0, 0]


def test_softmax_of_rows_of_several_chunks() -> None:
    x = normal(1, 2 * 4096 + 70, dtype=torch.float32)
    assert different(lambda x, **how: ops.softmax(x, 1, **how), x) == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("centred", [True, False])
def test_norms(centred: bool, dtype: torch.dtype) -> None:
    rows, columns = 35, 70
    x = normal(rows, columns, dtype=dtype)
    weight, bias = (normal(columns, dtype=dtype, seed=seed) for seed in (1, 2))

    def call(x: Tensor, *parameters: Tensor, **how: Any) -> Tensor:
        norm = ops.layer_norm if centred else ops.rms_norm
        return norm(x, (columns,), *parameters, variant="fixed_order", **how)

    parameters = [weight, bias] if centred else [weight]
    assert different(call, x, *parameters) == [0] * (2 + len(parameters))
    assert different(call, x[:3]) == [0, 0]
    assert different(call, awkward(x[:9]), *parameters) == [0] * (2 + len(parameters))
    assert different(call, x[:0], *parameters) == [0] * (2 + len(parameters))


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("variant", ["atomic", "two_pass"])
def test_sums_over_rows_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    """d u/(1 - d u) sum|term| with d = rows, which no order of additions exceeds."""
    rows, columns = 40, 5
    x, slope = (normal(rows, columns, dtype=dtype, seed=seed) for seed in (0, 1))
    parameters = [torch.ones(columns, dtype=dtype, requires_grad=True) for _ in range(2)]
    y = ops.layer_norm(x, (columns,), *parameters, variant=variant, backend="triton")
    of_bias = torch.autograd.grad(y, parameters, slope)[1]
    assert within(of_bias, slope, rows)
    assert not within(of_bias + 1e-2, slope, rows)  # the check can fail


def within(sums: Tensor, terms: Tensor, additions: int) -> bool:
    u = Fraction(2) ** (-53 if terms.dtype is torch.float64 else -24)
    bound = additions * u / (1 - additions * u)
    for found, column in zip(sums.tolist(), terms.T.tolist(), strict=True):
        exact = [Fraction(term) for term in column]
        if abs(Fraction(found) - sum(exact)) > bound * sum(map(abs, exact)):
            return False
    return True


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_cross_entropy(reduction: str, dtype: torch.dtype) -> None:
    rows, columns = 6, 70
    x = normal(rows, columns, dtype=dtype)
    weight = normal(columns, dtype=dtype, seed=1).abs()
    target = torch.tensor([3, 69, -100, 0, 64, 3])
    for smoothing, given in ((0.0, None), (0.1, weight)):
        for values in (x, awkward(x)):

            def call(x: Tensor, s: float = smoothing, w: Any = given, **how: Any) -> Tensor:
                return ops.cross_entropy(
                    x, target, w, reduction=reduction, label_smoothing=s, **how
                )

            assert different(call, values) == [0, 0]


@pytest.mark.parametrize("variant", OVER_ROWS)
def test_cross_entropy_over_rows(variant: str) -> None:
    x = normal(4100 if variant == "fixed_order" else 70, 2, dtype=torch.float32)
    target = (x[:, 0] > 0).long()
    call = launching.sum_of_rows
    losses = ops.cross_entropy(x, target, reduction="none")
    (total,) = call(losses, variant)
    assert within(total.reshape(1), losses.reshape(-1, 1), losses.numel())
    if variant == "fixed_order":
        assert torch.equal(total, ops.sum(losses, variant="fixed_order"))
    small = ops.cross_entropy(x[:5], target[:5], variant=variant, backend="triton")
    assert abs(small - ops.cross_entropy(x[:5], target[:5])) <= 5 * 2**-24 * small


def test_all_targets_ignored() -> None:
    x, target = normal(3, 4, dtype=torch.float32), torch.full((3,), -100)
    for reduction in ("mean", "sum"):
        found = [
            ops.cross_entropy(x, target, reduction=reduction, backend=backend)
            for backend in ("cpu", "triton")
        ]
        assert bits(found[0]) == bits(found[1])


def test_parts_are_added_in_rounds() -> None:
    for count in (1, 3, 67):
        parts = normal(count, 3, dtype=torch.float32)
        rounds = list(parts)
        while len(rounds) > 1:
            pairs = [a + b for a, b in zip(rounds[::2], rounds[1::2], strict=False)]
            rounds = pairs + rounds[len(pairs) * 2 :]
        assert torch.equal(bits(launching.fold(parts, torch.float32)), bits(rounds[0]))
        in_order = parts[0]
        for part in parts[1:]:
            in_order = in_order + part
        found = launching.fold(parts, torch.float32, in_order=True)
        assert torch.equal(bits(found), bits(in_order))


# ---- tables


@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_fixed_point(dtype: torch.dtype) -> None:
    n, columns = 50, 9
    index = torch.from_numpy(np.random.default_rng(3).integers(0, 7, n))
    source = normal(n, columns, dtype=dtype) * (4 * normal(n, columns, dtype=dtype, seed=1)).exp()
    source[3, 4] = math.nan
    source[:, 5] = -0.0
    source[0, 6], source[1, 6], source[2, 7] = math.inf, -math.inf, math.inf
    table = normal(7, columns, dtype=dtype, seed=2)
    table[:, 5] = -0.0
    table[2, 5], table[3, 8] = 0.0, -math.inf

    def add(x: Tensor, y: Tensor, dim: int = 0, **how: Any) -> Tensor:
        return ops.index_add(x, dim, index, y, variant="fixed_point", **how)

    assert different(add, table, source) == [0, 0, 0]
    assert different(lambda x, y, **how: add(x, y, 1, **how), table.T, source.T) == [0, 0, 0]
    cells = torch.from_numpy(np.random.default_rng(4).integers(0, 7, (n, columns)))

    def scatter(x: Tensor, y: Tensor, **how: Any) -> Tensor:
        return ops.scatter_add(x, 0, cells, y, variant="fixed_point", **how)

    assert different(scatter, table, source) == [0, 0, 0]
    turn = torch.from_numpy(np.random.default_rng(5).permutation(n))
    turned = ops.index_add(
        table, 0, index[turn], source[turn], variant="fixed_point", backend="triton"
    )
    assert torch.equal(bits(turned), bits(add(table, source)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-1000, -140, -20, 15, 120, 1000])
def test_fixed_point_at_the_ends_of_the_range(exponent: int, dtype: torch.dtype) -> None:
    if not torch.finfo(dtype).tiny / 2**10 <= 2.0**exponent < torch.finfo(dtype).max / 2:
        return
    source = (normal(30, dtype=torch.float64) * 2.0**exponent).to(dtype)
    index = torch.arange(30) % 3

    def add(x: Tensor, y: Tensor, **how: Any) -> Tensor:
        return ops.index_add(x, 0, index, y, variant="fixed_point", **how)

    assert different(add, torch.zeros(3, dtype=dtype), source) == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_scatter_atomic(dtype: torch.dtype) -> None:
    index = torch.tensor([0, 2, 2, 1, 2], dtype=torch.int32)
    source, table = normal(5, 3, dtype=dtype), normal(4, 3, dtype=dtype, seed=1)

    def add(x: Tensor, y: Tensor, **how: Any) -> Tensor:
        return ops.index_add(x, 0, index, y, variant="atomic", threads=None, **how)

    # One program here, in order, as one thread on the CPU is.
    assert different(add, table, source) == [0, 0, 0]


@pytest.mark.parametrize(("op", "bad"), [("index_add", 7), ("index_add", -1), ("scatter_add", 7)])
def test_an_index_out_of_range_is_named(op: str, bad: int) -> None:
    index = torch.tensor([0, bad, 1])
    with pytest.raises(IndexError, match=rf"index {bad} at position 1 is out of range for size 7"):
        getattr(ops, op)(
            torch.zeros(7), 0, index, torch.ones(3), variant="fixed_point", backend="triton"
        )


def test_a_target_that_is_no_class_is_named() -> None:
    with pytest.raises(IndexError, match="target 4 at position 1 is not one of the 4 classes"):
        ops.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 4]), backend="triton")


# ---- products


def _odd(x: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """x, rounded to nearest from x + rest, as if rounded to odd. float64."""
    bits = x.view(np.int64)
    away = np.where((rest > 0) == (x > 0), 1, -1)
    return np.where((rest != 0) & (bits & 1 == 0), bits + away, bits).view(np.float64)


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        high = x * 134217729.0 - (x * 134217729.0 - x)
        return high, x - high

    product = a * b
    (a1, a2), (b1, b2) = halves(a), halves(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def exact_fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """x * y + z, rounded once (Boldo and Melquiond, 2008); no overflow or underflow."""
    if x.dtype == np.float32:
        product = x.astype(np.float64) * y
        return _odd(*_two_sum(product, z.astype(np.float64))).astype(np.float32)
    high, low = _two_product(x, y)
    upper, lower = _two_sum(z, low)
    total, rest = _two_sum(high, upper)
    return total + _odd(*_two_sum(rest, lower))


@pytest.fixture
def fused_fma(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter rounds a multiply-add twice; a GPU does not."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        return TensorHandle(exact_fma(x.data, y.data, z.data), z.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)


def test_the_exact_fma() -> None:
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(0)
        x, y, z = (rng.standard_normal(2000).astype(dtype) for _ in range(3))
        z[:500] = -(x * y)[:500]  # where a second rounding would show
        found = exact_fma(x, y, z)
        exact = [Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)) for a, b, c in
                 zip(x, y, z, strict=True)]  # fmt: skip
        if dtype is np.float64:
            assert found.tolist() == [float(value) for value in exact]
        distance = np.nextafter(found, dtype(np.inf)) - found
        for got, true, ulp in zip(found.tolist(), exact, distance.tolist(), strict=True):
            assert abs(Fraction(got) - true) <= Fraction(ulp) / 2


VARIANTS_OF_MATMUL = ["fixed_split", "splitk_ordered", "splitk_atomic"]


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("variant", VARIANTS_OF_MATMUL)
@pytest.mark.usefixtures("fused_fma")
def test_products_have_the_bits_of_the_cpu(variant: str, dtype: torch.dtype) -> None:
    """splitk_atomic too: the interpreter's programs add in the order of the slices."""
    terms = 256 * 3 + 5

    def product(a: Tensor, b: Tensor, **how: Any) -> Tensor:
        chosen = "splitk_ordered" if how["backend"] == "cpu" else variant
        return ops.matmul(a, b, variant=chosen, **how)

    a, b = normal(3, terms, dtype=dtype), normal(terms, 5, dtype=dtype, seed=1)
    with torch.no_grad():
        found = [product(a, b, backend=backend) for backend in ("cpu", "triton")]
    assert torch.equal(bits(found[0]), bits(found[1]))
    small = normal(2, 3, 40, dtype=dtype), normal(40, 4, dtype=dtype, seed=1)
    assert different(product, *small) == [0, 0, 0]


def test_without_fusion_products_differ() -> None:
    """The check can fail: the interpreter's own multiply-add rounds twice."""
    a, b = normal(8, 300, dtype=torch.float32), normal(300, 8, dtype=torch.float32, seed=1)
    found = [ops.matmul(a, b, backend=backend) for backend in ("cpu", "triton")]
    assert not torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS_OF_MATMUL)
def test_products_on_tensor_cores_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    terms = 600
    a, b = normal(3, terms, dtype=dtype), normal(terms, 5, dtype=dtype, seed=1)
    there = ops.matmul(a.to(DEVICE), b.to(DEVICE), variant=variant, backend="triton")
    found = there.cpu().double()
    exact, magnitude = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    rounding = exact.abs() * torch.finfo(dtype).eps / 2
    bound = terms * 2**-23 * magnitude + rounding
    assert bool(((found - exact).abs() <= bound).all())
    assert not bool(((found * 1.01 - exact).abs() <= bound).all())


# ---- attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool, dtype: torch.dtype) -> None:
    """Within 16 roundings to the dtype of each term, on either backend; variants agree where
    programs run in turn."""
    heads, queries, keys, d = 2, 70, 100, 24
    given = [normal(heads, n, d, dtype=dtype, seed=n) for n in (queries, keys, keys + 1)]
    given[2] = given[2][:, :keys]
    q, k, v = (x.double().requires_grad_() for x in given)
    slope = normal(heads, queries, d, dtype=dtype, seed=9)
    scores = q @ k.mT / math.sqrt(d)
    if causal:
        scores = scores.masked_fill(torch.ones(queries, keys).triu(1).bool(), -math.inf)
    share = scores.softmax(-1)
    out = share @ v
    exact = [out, *torch.autograd.grad(out, (q, k, v), slope.double())]
    with torch.no_grad():
        of_share = slope.double().abs() @ v.abs().mT
        along = (slope.double().abs() * out.abs()).sum(-1, keepdim=True)
        of_scores = share * (of_share + along) / math.sqrt(d)
        sizes = [
            share @ v.abs(),
            of_scores @ k.abs(),
            of_scores.mT @ q.abs(),
            share.mT @ slope.double().abs(),
        ]
    u = torch.finfo(dtype).eps / 2
    results = []
    for variant in ("split_buffers", "semaphore_ordered", "atomic", "fixed_order"):
        backend = "cpu" if variant == "fixed_order" else "triton"
        place = "cpu" if backend == "cpu" else DEVICE
        mine = [x.to(place, copy=True).requires_grad_() for x in given]
        y = ops.attention(*mine, causal, variant=variant, backend=backend)
        y.backward(slope.to(place))
        found = [y.detach().cpu(), *(x.grad.cpu() for x in mine)]
        for got, true, size in zip(found, exact, sizes, strict=True):
            assert bool(((got.double() - true).abs() <= 16 * u * size).all()), variant
            assert not bool(((got.double() + 40 * u * size - true).abs() <= 16 * u * size).all())
        results.append(found)
    for other in results[1:3] if INTERPRETED else ():
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(bits(a), bits(b))


# ---- operators


def test_operators_are_what_torch_expects() -> None:
    """Without what needs tensors without data: the interpreter runs at once (test_graph.py)."""
    operators = torch.ops.nondet_probe
    x, w = normal(3, 5, dtype=torch.float64), normal(5, dtype=torch.float64)
    index = torch.tensor([0, 2, 1])
    heads = normal(1, 3, 5, dtype=torch.float32)
    for operator, given in (
        (operators.softmax_triton, (x, True)),
        (operators.layer_norm_triton, (x, 5, w, w, 1e-5, True, "two_pass")),
        (operators.cross_entropy_triton, (x, index, None, -100, 1, 0.1, "fixed_order")),
        (operators.scatter_rows_triton, (x, index, x, "fixed_point")),
        (operators.matmul_triton, (x, w.view(5, 1), "fixed_split")),
        (operators.attention_triton, (heads, heads, heads, False, 0.5, "atomic")),
    ):
        given = tuple(
            value.clone().requires_grad_()
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for value in given
        )
        tests = ["test_schema", "test_autograd_registration"]
        assert set(torch.library.opcheck(operator, given, test_utils=tests).values()) == {"SUCCESS"}


# ---- the claims, and offences that the checks above must find


def test_every_claim_on_bits_is_tested_above() -> None:
    claimed = {
        (op, variant)
        for op, of_op in backends.offers("triton").items()
        for variant, offer in of_op.items()
        if offer.bits_of_cpu
    }
    rows = {(op, "fixed_order") for op in ("softmax", "log_softmax", "layer_norm", "rms_norm")}
    tables = {(op, "fixed_point") for op in ("index_add", "scatter_add")}
    products = {("matmul", variant) for variant in ("fixed_split", "splitk_ordered")}
    assert claimed == rows | tables | products | {("cross_entropy", "fixed_order")}
    assert Guarantee.CORRECTLY_ROUNDED not in {
        offer.guarantee for of_op in backends.offers("triton").values() for offer in of_op.values()
    }


@triton.jit
def neighbours(lanes, ROWS: tl.constexpr):
    """64 lanes folded by neighbours, as a tree of warps might do it."""
    x = lanes
    for i in tl.static_range(6):
        low, high = tl.split(tl.reshape(x, [ROWS, 32 >> i, 2]))
        x = low + high
    return tl.reshape(x, [ROWS])


@triton.jit
def exp_of_the_library(x):
    return tl.exp(x)


def test_another_order_of_lanes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax_kernels, "fold_lanes", neighbours)
    x = normal(8, 70, dtype=torch.float32)
    assert sum(different(lambda x, **how: ops.softmax(x, 1, **how), x)) > 0


def test_another_exp_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax_kernels, "exp_of", exp_of_the_library)
    x = normal(8, 70, dtype=torch.float32)
    assert sum(different(lambda x, **how: ops.softmax(x, 1, **how), x)) > 0


def test_lanes_are_64_and_chunks_4096() -> None:
    assert (order_kernels.LANES.value, order_kernels.CHUNK.value) == (64, launching.CHUNK)
