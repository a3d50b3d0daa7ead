"""layer_norm and rms_norm: the documented bits, the promises of the variants, and refusals."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import bits_of, from_bits, normal
from rows_oracle import (
    computed,
    exact_norm,
    exact_norm_gradient,
    fractions_of,
    norm,
    norm_gradients,
    unit,
)
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, layer_norm, rms_norm, variants
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("layer_norm")]
ORDERED = [v.name for v in variants("layer_norm") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]
EPS = 1e-5
ISAS = _C.available_isas()


class Case:
    """A matrix, the gradient of its norm, and parameters."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> None:
        self.x = normal(rows * columns, dtype, seed).reshape(rows, columns)
        self.dy = normal(rows * columns, dtype, seed + 1).reshape(rows, columns)
        self.weight = normal(columns, dtype, seed + 2)
        self.bias = normal(columns, dtype, seed + 3)

    def run(self, variant: str, centred: bool = True, threads: int | None = 1) -> list[Tensor]:
        """y, dx, dgamma and, where centred, dbeta."""
        given = [self.x, self.weight, *([self.bias] if centred else [])]
        leaves = [tensor.detach().clone().requires_grad_() for tensor in given]
        op = layer_norm if centred else rms_norm
        shape = (self.x.shape[1],)
        y = op(leaves[0], shape, *leaves[1:], eps=EPS, variant=variant, threads=threads)
        y.backward(self.dy)
        return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def bits(tensors: list[Tensor]) -> list[list[int]]:
    return [bits_of(tensor) for tensor in tensors]


def as_dtype(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values).to(dtype)


# ---- the format


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("centred", [True, False])
def test_the_bits_are_the_documented_ones(
    centred: bool, dtype: torch.dtype, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    for rows, columns in ((1, 1), (3, 63), (33, 64), (100, 65), (2, 200), (1, 8300)):
        case = Case(rows, columns, dtype, rows + columns)
        x, dy, weight = computed(case.x), computed(case.dy), computed(case.weight)
        bias = computed(case.bias) if centred else None
        expected = [norm(x, weight, bias, EPS, centred)]
        expected += norm_gradients(dy, x, weight, EPS, centred)[: 3 if centred else 2]
        got = case.run("fixed_order", centred)
        for name, one, other in zip(("y", "dx", "dgamma", "dbeta"), got, expected, strict=False):
            assert bits_of(one) == bits_of(as_dtype(other, dtype)), (name, rows, columns)


def test_many_chunks_of_rows_are_added_in_rounds() -> None:
    """Workers fold groups of chunks, whose size depends on the threads; the tree does not."""
    case = Case(32 * 43 + 5, 96, torch.float32, 3)
    x, dy, weight = computed(case.x), computed(case.dy), computed(case.weight)
    _, dgamma, dbeta = norm_gradients(dy, x, weight, EPS, True)
    for threads in (1, 2, 3, 4, 8):
        got = case.run("fixed_order", threads=threads)
        assert bits_of(got[2]) == bits_of(as_dtype(dgamma, torch.float32))
        assert bits_of(got[3]) == bits_of(as_dtype(dbeta, torch.float32))
    in_order = norm_gradients(dy, x, weight, EPS, True, lambda terms: terms.cumsum(0)[-1])
    assert bits_of(got[2]) != bits_of(as_dtype(in_order[1], torch.float32))  # the order does tell


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1024, 1040])
def test_a_large_gradient_stored_past_the_caches_has_the_same_bits(
    columns: int, dtype: torch.dtype, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    rows = (8 << 20) // dtype.itemsize // 1024
    x, dy = normal(rows * columns, dtype, 0), normal(rows * columns, dtype, 1)
    weight, statistics = normal(columns, dtype, 2), normal(2 * rows, dtype, 3).reshape(2, rows)

    def gradient(first: int, end: int) -> Tensor:
        part = [given.view(rows, columns)[first:end] for given in (dy, x)]
        kept = statistics[:, first:end].contiguous()
        return torch.ops.nondet_probe.layer_norm_backward(
            *part, columns, weight, kept, True, True, "fixed_order", 2
        )[0]

    whole = gradient(0, rows)
    pieces = torch.cat([gradient(i, i + rows // 8) for i in range(0, rows, rows // 8)])
    assert torch.equal(whole.view(torch.uint8), pieces.view(torch.uint8))


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(577, 230, dtype, 5)  # work for four
    for centred in (True, False):
        expected = bits(case.run(variant, centred))
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert bits(case.run(variant, centred)) == expected, isa
        monkeypatch.delenv("NONDET_PROBE_ISA")
        for threads in (2, 2, 3, 4, 5, 6, 7, 8) if centred else (2,):
            assert bits(case.run(variant, centred, threads)) == expected, threads


def terms_of(case: Case, dtype: torch.dtype) -> Tensor:
    """The rounded terms of dgamma, in the type computed in, by a gradient of one row at a time."""
    x, dy = computed(case.x), computed(case.dy)
    rows = []
    for one, gradient in zip(x, dy, strict=True):
        rows.append(
            norm_gradients(gradient[None], one[None], np.ones_like(one), EPS, True, lambda t: t)[1]
        )
    return torch.from_numpy(np.concatenate(rows))


def place(pattern: int, dtype: torch.dtype) -> int:
    sign = FORMATS[dtype].sign
    return -(pattern & ~sign) if pattern & sign else pattern


def within(pattern: int, exact: Fraction, error: Fraction, dtype: torch.dtype) -> bool:
    """Whether these are the bits of a number within `error` of `exact`, rounded once."""
    low, high = (round_to_bits(exact + side, dtype) for side in (-error, error))
    return place(low, dtype) <= place(pattern, dtype) <= place(high, dtype)


DEPTH: dict[str, Callable[[int], int]] = {
    "atomic": lambda rows: 8 + math.ceil(rows / 8),
    "two_pass": lambda rows: rows + 2,
    "fixed_order": lambda rows: 31 + math.ceil(math.log2(math.ceil(rows / 32))),
    "exact": lambda rows: 0,
}


def sum_error(variant: str, terms: Tensor) -> Fraction:
    relative = DEPTH[variant](len(terms)) * unit(terms.dtype)
    magnitudes = exact_sum(terms.abs())
    assert isinstance(magnitudes, Fraction)
    return relative / (1 - relative) * magnitudes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_sums_over_rows_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    case = Case(500, 65, dtype, 9)
    _, _, dgamma, dbeta = case.run(variant, threads=2)
    of_gamma, of_beta = terms_of(case, dtype), case.dy
    for got, terms in ((dgamma, of_gamma), (dbeta, torch.from_numpy(computed(of_beta)))):
        for column in (0, 31, 64):
            exact = exact_sum(terms[:, column])
            assert isinstance(exact, Fraction)
            error = sum_error(variant, terms[:, column])
            assert within(bits_of(got)[column], exact, error, dtype)
            assert not within(
                bits_of(got)[column] ^ 1 << FORMATS[dtype].fraction_bits, exact, error, dtype
            )


def test_exact_adds_what_floats_lose() -> None:
    """dbeta is the sum of the gradients as they are: with cancellation, subnormals, wide ranges."""
    for dtype in DTYPES:
        tiny = from_bits([1] * 8, dtype).reshape(8, 1)
        huge = torch.full((4, 1), torch.finfo(dtype).max, dtype=dtype)
        column = torch.cat([huge, tiny, -huge, normal(100, dtype, 1).reshape(-1, 1)])
        for dy in (column, column[:20], -tiny * 0, tiny * 0, column.repeat(1, 70)):
            case = Case(len(dy), dy.shape[1], dtype, 2)
            case.dy = dy
            dbeta = case.run("exact", threads=2)[3]
            assert bits_of(dbeta)[0] == round_to_bits(exact_sum(dy[:, 0]), dtype)


def test_exact_does_not_depend_on_the_order_of_rows() -> None:
    case = Case(300, 70, torch.float32, 4)
    expected = bits(case.run("exact")[2:])
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    ordered = bits(case.run("fixed_order")[2:])
    case.x, case.dy = case.x[order].contiguous(), case.dy[order].contiguous()
    assert bits(case.run("exact")[2:]) == expected
    assert bits(case.run("fixed_order")[2:]) != ordered


@pytest.mark.parametrize("threads", [2, 3])
def test_atomic_is_seen_to_vary(threads: int) -> None:
    case = Case(30_000, 96, torch.float32, 6)
    seen: set[tuple[int, ...]] = set()
    for _ in range(300):
        seen.add(tuple(bits_of(case.run("atomic", threads=threads)[2])))
        if len(seen) > 1:
            return
    raise AssertionError(
        f"300 atomic gradients on {threads} threads gave the same bits; this process may run on "
        f"{len(os.sched_getaffinity(0))} processors"
    )


def test_two_pass_depends_on_the_threads_alone() -> None:
    case = Case(2048, 96, torch.float32, 7)
    of_two = [bits(case.run("two_pass", threads=2)) for _ in range(5)]
    assert all(one == of_two[0] for one in of_two)
    assert bits(case.run("two_pass", threads=3)) != of_two[0]


# ---- rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("centred", [True, False])
def test_rows_are_near_the_truth(centred: bool, dtype: torch.dtype) -> None:
    """The documented bound of y; for dx one that is far from what a mistake would give."""
    n = 100
    case = Case(3, n, dtype, 11)
    case.x[1] += 8  # a mean far from 0
    y, dx = case.run("fixed_order", centred)[:2]
    u = unit(dtype)
    for row in range(3):
        x, weight = fractions_of(case.x[row]), fractions_of(case.weight)
        normed = exact_norm(case.x[row], torch.ones(n), None, EPS, centred)
        exact = exact_norm(case.x[row], case.weight, case.bias if centred else None, EPS, centred)
        scale = (normed[0] - normed[1]) / (x[0] - x[1])
        from_mean = 70 * sum(map(abs, x)) / n * scale if centred else Fraction(0)
        for got, value, inner, w in zip(bits_of(y[row]), exact, normed, weight, strict=True):
            error = (abs(w) * (from_mean + 43 * abs(inner)) + abs(value)) * u
            assert within(got, value, error, dtype)
            assert not within(got ^ 1 << FORMATS[dtype].fraction_bits, value, error, dtype)
        spread = max(map(abs, x)) * scale
        scale *= max(map(abs, weight))
        exact = exact_norm_gradient(case.dy[row], case.x[row], case.weight, EPS, centred)
        error = 400 * u * scale * max(map(abs, fractions_of(case.dy[row]))) * spread**2
        for got, value in zip(bits_of(dx[row]), exact, strict=True):
            assert within(got, value, error, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    case = Case(70, 100, dtype, 12)
    y, dx = case.run("fixed_order", threads=2)[:2]
    for row in (0, 33, 69):
        alone = Case(1, 100, dtype, 0)
        alone.weight, alone.bias = case.weight, case.bias
        alone.x, alone.dy = case.x[row : row + 1], case.dy[row : row + 1]
        assert bits(alone.run("fixed_order")[:2]) == [bits_of(y[row]), bits_of(dx[row])]


def test_strides_offsets_and_shapes_change_no_bit() -> None:
    x = normal(4 * 6 * 10 + 5, torch.float32, 13)
    weight = normal(60, torch.float32, 14).reshape(6, 10)
    plain = x[:240].reshape(4, 6, 10)
    expected = bits_of(layer_norm(plain, (6, 10), weight))
    assert expected == bits_of(layer_norm(plain.reshape(4, 60), (60,), weight.reshape(60)))
    assert expected == bits_of(layer_norm(plain.permute(2, 0, 1).contiguous().permute(1, 2, 0),
                                          (6, 10), weight.t().contiguous().t()))  # fmt: skip
    for offset in range(1, 6):
        moved = torch.empty(245)[offset : offset + 240].reshape(4, 6, 10).copy_(plain)
        assert bits_of(layer_norm(moved, (6, 10), weight)) == expected


def test_missing_parameters_are_ones_and_nothing() -> None:
    x = normal(130, torch.float64, 15).reshape(2, 65)
    ones = torch.ones(65, dtype=torch.float64)
    assert bits_of(layer_norm(x, (65,))) == bits_of(layer_norm(x, (65,), ones, -0.0 * ones))
    assert bits_of(rms_norm(x, (65,), eps=1e-3)) == bits_of(rms_norm(x, (65,), ones, 1e-3))
    eps = torch.finfo(torch.float64).eps
    assert bits_of(rms_norm(x, (65,))) == bits_of(rms_norm(x, (65,), eps=eps))


def test_only_what_is_asked_for_has_a_gradient() -> None:
    case = Case(3, 5, torch.float32)
    bias = case.bias.requires_grad_()
    layer_norm(case.x, (5,), case.weight, bias).backward(case.dy)
    assert bits_of(bias.grad) == bits_of(case.run("fixed_order")[3])  # type: ignore[arg-type]
    assert case.x.grad is None
    assert case.weight.grad is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_to_do(variant: str) -> None:
    for rows, columns in ((0, 3), (2, 0), (0, 0)):
        y, dx, dgamma, dbeta = Case(rows, columns, torch.float32).run(variant)
        assert y.shape == dx.shape == (rows, columns)
        assert bits_of(dgamma) == bits_of(dbeta) == [0] * columns


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_stay_in_their_row(dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    for pattern in (form.quiet_nan | form.sign | 1, form.infinity, form.infinity | form.sign):
        case = Case(3, 70, dtype, 16)
        clean = case.run("fixed_order")
        case.x[1, 7] = from_bits([pattern], dtype)[0]
        for isa in ISAS:
            os.environ["NONDET_PROBE_ISA"] = isa
            try:
                y, dx, dgamma, dbeta = case.run("exact")
            finally:
                del os.environ["NONDET_PROBE_ISA"]
            for got, expected in ((y, clean[0]), (dx, clean[1])):
                assert bits_of(got[0]) == bits_of(expected[0])
                assert bits_of(got[2]) == bits_of(expected[2])
                assert bits_of(got[1]) == [form.quiet_nan] * 70
            assert bits_of(dgamma) == [form.quiet_nan] * 70
            assert bits_of(dbeta) == bits_of(case.run("exact")[3])


# ---- refusals


X, W = torch.ones(2, 3), torch.ones(3)
REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: layer_norm(X, (3,), variant="exakt"), UnknownNameError, "did you mean 'exact'"),
    (lambda: layer_norm(X, (2,)), UsageError, r"\(2,\) is not the end of .* \(2, 3\)"),
    (lambda: layer_norm(X, ()), UsageError, r"normalized_shape \(\) is not the end"),
    (lambda: layer_norm(X, (3,), torch.ones(2)), UsageError, r"weight has shape \(2,\)"),
    (lambda: layer_norm(X, (3,), W, W.double()), TypeError, "bias in the dtype of the input"),
    (lambda: rms_norm(X, (3,), [1.0]), TypeError, "as weight, got list"),  # type: ignore[arg-type]
    (lambda: layer_norm([1.0], (1,)), TypeError, "got list"),  # type: ignore[arg-type]
    (lambda: layer_norm(X.int(), (3,)), TypeError, "takes float64, .*; got int32"),
    (lambda: layer_norm(X, (3,), threads=0), UsageError, "threads must be at least 1, got 0"),
    (lambda: rms_norm(X.to("meta"), (3,)), TypeError, "on cpu or cuda, got one on meta"),
    (lambda: layer_norm(X.to_sparse(), (3,)), TypeError, "layout torch.sparse_coo"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_tensor_without_memory_is_refused() -> None:
    for which in range(2):
        given = [torch.ones(2, 3), torch.ones(3)]
        given[which].untyped_storage().resize_(0)
        with pytest.raises(TypeError, match="no memory behind it"):
            layer_norm(given[0], (3,), given[1])


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    case = Case(3, 7, dtype, 17)
    leaves = [t.requires_grad_() for t in (case.x, case.weight, case.bias)]
    ops = torch.ops.nondet_probe
    given = (leaves[0], 7, leaves[1], leaves[2], EPS, True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        torch.library.opcheck(ops.layer_norm_forward.default, (*given, variant, 2))
    plain = [t.detach() if isinstance(t, Tensor) else t for t in given]
    statistics = ops.layer_norm_forward(*plain, variant, 2)[1]
    torch.library.opcheck(
        ops.layer_norm_backward.default,
        (case.dy, plain[0], 7, plain[2], statistics, True, True, variant, 2),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck_without_gradients_and_without_a_mean(dtype: torch.dtype) -> None:
    case = Case(3, 7, dtype, 17)
    ops = torch.ops.nondet_probe
    given = (case.x, 7, case.weight, None, EPS, False)
    torch.library.opcheck(ops.layer_norm.default, (*given, 2))
    statistics = ops.layer_norm_forward(*given, "exact", 2)[1]
    torch.library.opcheck(
        ops.layer_norm_backward.default,
        (case.dy, case.x, 7, case.weight, statistics, False, False, "exact", 2),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    case = Case(3, 5, torch.float64, 18)
    given = [t.requires_grad_() for t in (case.x, case.weight, case.bias)]
    # Three rows are one block of `atomic`: nothing varies.
    assert torch.autograd.gradcheck(
        lambda x, w, b: layer_norm(x, (5,), w, b, variant=variant), given, nondet_tol=0.0
    )
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, (5,), w, variant=variant), given[:2])


def test_a_second_derivative_is_refused() -> None:
    x = normal(6, torch.float64, 1).reshape(2, 3).requires_grad_()
    with pytest.raises(TypeError, match="layer_norm_backward has no derivative"):
        torch.autograd.grad(layer_norm(x * 1, (3,)).square().sum(), x, create_graph=True)


def test_compiled_code_gives_the_same_bits() -> None:
    case = Case(40, 65, torch.float32, 19)

    def both(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return layer_norm(x * 3, (65,), w, b) + rms_norm(x, (65,), w)

    results = []
    for run in (both, torch.compile(both, backend="aot_eager", fullgraph=True)):
        leaves = [t.detach().clone().requires_grad_() for t in (case.x, case.weight, case.bias)]
        y = run(*leaves)
        y.backward(case.dy)
        results.append(bits([y.detach(), *(leaf.grad for leaf in leaves)]))  # type: ignore[misc]
    assert results[0] == results[1]
