"""cross_entropy: rows near the truth, the promises of the variants, targets, and refusals."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from generators import bits_of, from_bits, normal
from rows_oracle import computed, exact_cross_entropy, fractions_of, row_sum, unit
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, cross_entropy, variants
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("cross_entropy")]
ORDERED = [v.name for v in variants("cross_entropy") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]
ISAS = _C.available_isas()
IGNORED = -100


class Case:
    """Rows, their targets (every fifth ignored) and weights."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> None:
        self.x = 3 * normal(rows * columns, dtype, seed).reshape(rows, columns)
        numbers = torch.arange(rows)
        self.target = (numbers * 7919 + seed) % columns
        self.target[numbers % 5 == 3] = IGNORED
        self.weight = normal(columns, dtype, seed + 1).abs() + 0.25

    def run(self, threads: int = 1, **options: object) -> list[list[int]]:
        """The bits of the loss and of the gradient."""
        leaf = self.x.detach().clone().requires_grad_()
        loss = cross_entropy(leaf, self.target, threads=threads, **options)  # type: ignore[arg-type]
        loss.backward(torch.ones_like(loss))
        assert leaf.grad is not None
        return [bits_of(loss.detach()), bits_of(leaf.grad)]

    def losses(self, **options: object) -> Tensor:
        """Of the rows, in the type that they are computed in (float32 alone shows it)."""
        return cross_entropy(self.x, self.target, reduction="none", **options)  # type: ignore[arg-type]


OPTIONS: list[dict[str, object]] = [
    {"reduction": "mean"},
    {"reduction": "sum", "label_smoothing": 0.25},
    {"reduction": "none"},
]


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(577, 230, dtype, 1)  # work for four
    for options in OPTIONS:
        options = {**options, "variant": variant, "weight": case.weight}
        expected = case.run(**options)
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert case.run(**options) == expected, isa
        monkeypatch.delenv("NONDET_PROBE_ISA")
        for threads in range(2, 9) if options["reduction"] == "mean" else (2,):
            assert case.run(threads, **options) == expected, threads


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
    "fixed_order": lambda rows: 69 + math.ceil(math.log2(math.ceil(rows / 4096))),
    "exact": lambda rows: 0,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_sums_of_losses_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    case = Case(997, 100, dtype, 2)
    losses = case.losses()
    counted = int((case.target != IGNORED).sum())
    exact = exact_sum(losses)
    assert isinstance(exact, Fraction)
    relative = DEPTH[variant](997) * unit(dtype)
    error = relative / (1 - relative) * exact  # losses are not negative
    for reduction, count in (("sum", 1), ("mean", counted)):
        [got], _ = case.run(2, variant=variant, reduction=reduction)
        rounding = 0 if variant == "exact" else unit(dtype) * exact / count  # of the quotient
        assert within(got, exact / count, error / count + rounding, dtype)
        assert not within(
            got ^ 1 << FORMATS[dtype].fraction_bits, exact / count, error / count + rounding, dtype
        )


def test_fixed_order_is_that_of_sum() -> None:
    case = Case(5003, 3, torch.float32, 3)
    total = row_sum(case.losses().numpy())
    assert case.run(reduction="sum")[0] == bits_of(torch.tensor(total))
    counted = total.dtype.type((case.target != IGNORED).sum().item())
    assert case.run(reduction="mean")[0] == bits_of(torch.tensor(total / counted))
    assert case.losses().cumsum(0)[-1] != total.item()  # the order does tell


def test_exact_of_narrow_dtypes_is_rounded_once() -> None:
    """bf16 and f16 rows have float32 losses; those of their float32 copies are the same."""
    for dtype in (torch.bfloat16, torch.float16):
        case = Case(300, 70, dtype, 4)
        wide = Case(300, 70, dtype, 4)
        wide.x = case.x.float()
        for reduction, count in (("sum", 1), ("mean", 240)):
            exact = exact_sum(wide.losses())
            assert isinstance(exact, Fraction)
            [got], _ = case.run(variant="exact", reduction=reduction)
            assert got == round_to_bits(exact / count, dtype)


def test_an_exact_weighted_mean() -> None:
    case = Case(400, 50, torch.float64, 5)
    weights = case.weight[case.target[case.target != IGNORED]]
    total, exact = exact_sum(weights), exact_sum(case.losses(weight=case.weight))
    assert isinstance(exact, Fraction)
    assert isinstance(total, Fraction)
    [got], _ = case.run(variant="exact", weight=case.weight)
    assert within(got, exact / total, 3 * unit(torch.float64) * exact / total, torch.float64)


@pytest.mark.parametrize("variant", ORDERED)
def test_exact_does_not_depend_on_the_order_of_rows(variant: str) -> None:
    case = Case(3000, 10, torch.float32, 6)
    seen = set()
    for seed in range(8):
        order = torch.randperm(3000, generator=torch.Generator().manual_seed(seed))
        case.x, case.target = case.x[order].contiguous(), case.target[order].contiguous()
        seen.add(case.run(variant=variant)[0][0])
    assert (len(seen) == 1) == (variant == "exact")


@pytest.mark.parametrize("threads", [2, 3])
def test_atomic_is_seen_to_vary(threads: int) -> None:
    case = Case(200_000, 8, torch.float32, 7)
    seen: set[int] = set()
    for _ in range(500):
        seen.add(bits_of(cross_entropy(case.x, case.target, variant="atomic", threads=threads))[0])
        if len(seen) > 1:
            return
    raise AssertionError(
        f"500 atomic losses on {threads} threads gave the same bits; this process may run on "
        f"{len(os.sched_getaffinity(0))} processors"
    )


def test_two_pass_depends_on_the_threads_alone() -> None:
    case = Case(8192, 32, torch.float32, 8)
    by_threads = [
        case.run(threads, variant="two_pass", reduction="sum")[0] for threads in range(1, 9)
    ]
    again = [case.run(threads, variant="two_pass", reduction="sum")[0] for threads in range(1, 9)]
    assert by_threads == again
    assert len({pattern for [pattern] in by_threads}) > 1


# ---- rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_rows_are_near_the_truth(smoothing: float, dtype: torch.dtype) -> None:
    case = Case(6, 80, dtype, 9)
    case.target[3] = 5
    losses = case.losses(weight=case.weight, label_smoothing=smoothing)
    weight = fractions_of(case.weight)
    u = unit(dtype)
    for row, got in enumerate(bits_of(losses)):
        exact = exact_cross_entropy(case.x[row], int(case.target[row]), weight, smoothing)
        error = 78 * u * weight[int(case.target[row])] + u * exact
        if smoothing:  # each of its terms is a rounded distance
            error += 90 * u * max(weight) * max(map(abs, fractions_of(case.x[row])))
        assert within(got, exact, error, dtype)
        assert not within(got ^ 1 << FORMATS[dtype].fraction_bits, exact, error, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_are_near_those_of_fp64(weighted: bool, dtype: torch.dtype) -> None:
    case = Case(50, 80, dtype, 10)
    wide = Case(50, 80, dtype, 10)
    wide.x, wide.weight = case.x.double(), case.weight.double()
    for options in ({"label_smoothing": 0.1}, {"reduction": "sum"}):
        leaf = wide.x.clone().requires_grad_()
        torch.nn.functional.cross_entropy(
            leaf,
            wide.target,
            wide.weight if weighted else None,
            **options,  # type: ignore[arg-type]
        ).backward()
        assert leaf.grad is not None
        _, got = case.run(**options, weight=case.weight if weighted else None)
        largest = leaf.grad.abs().max().item()
        bound = 200 * float(unit(dtype)) * largest
        for pattern, expected in zip(got, leaf.grad.reshape(-1).tolist(), strict=True):
            assert within(pattern, Fraction(expected), Fraction(bound), dtype)


def test_shapes_are_those_of_torch() -> None:
    x = normal(4 * 5 * 3 * 2, torch.float64, 11).reshape(4, 5, 3, 2)
    target = torch.arange(24).reshape(4, 3, 2) % 5
    losses = cross_entropy(x, target, reduction="none")
    assert losses.shape == (4, 3, 2)
    rows = cross_entropy(x.movedim(1, -1).reshape(24, 5), target.reshape(24), reduction="none")
    assert bits_of(losses) == bits_of(rows)
    assert bits_of(cross_entropy(x[0, :, 0, 0], target[0, 0, 0])) == bits_of(losses[0, 0, 0])
    for offset in range(3):
        moved = torch.empty(123, dtype=torch.float64)[offset : offset + 120].reshape(x.shape)
        assert bits_of(cross_entropy(moved.copy_(x), target, reduction="none")) == bits_of(losses)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_to_add(variant: str) -> None:
    nan, zero = FORMATS[torch.float32].quiet_nan, 0
    for x, target in (
        (torch.ones(0, 3), torch.ones(0, dtype=torch.int64)),
        (torch.ones(4, 3), torch.full((4,), IGNORED)),
    ):
        assert bits_of(cross_entropy(x, target, variant=variant)) == [nan]
        assert bits_of(cross_entropy(x, target, reduction="sum", variant=variant)) == [zero]
    case = Case(10, 3, torch.float32)
    _, gradient = case.run(variant=variant)
    for row in (3, 8):
        assert gradient[3 * row : 3 * row + 3] == [0, 0, 0]
        assert bits_of(case.losses(variant=variant))[row] == 0


def test_ignore_index_may_be_a_class() -> None:
    case = Case(20, 3, torch.float32)
    case.target[case.target == IGNORED] = 1
    others = case.target != 1
    assert bits_of(cross_entropy(case.x, case.target, ignore_index=1, variant="exact")) == bits_of(
        cross_entropy(case.x[others], case.target[others], variant="exact")
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_stay_in_their_row(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS[dtype]
    case = Case(3, 70, dtype, 12)
    clean, gradient = case.run(reduction="none")
    for pattern in (form.quiet_nan | form.sign | 1, form.infinity):
        case.x[1, 7] = from_bits([pattern], dtype)[0]
        for isa in ISAS:
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            losses, got = case.run(reduction="none")
            assert losses == [clean[0], form.quiet_nan, clean[2]]
            assert got[:70] == gradient[:70]
            assert got[140:] == gradient[140:]
            assert got[70:140] == [form.quiet_nan] * 70
            for variant in VARIANTS:
                assert case.run(variant=variant)[0] == [form.quiet_nan]


def test_a_target_of_probability_zero_costs_infinity() -> None:
    x = torch.tensor([[0.0, -math.inf]])
    assert cross_entropy(x, torch.tensor([1])).item() == math.inf
    assert bits_of(cross_entropy(x, torch.tensor([0]))) == [0]


# ---- refusals

X, T = torch.ones(2, 3), torch.tensor([0, 2])
REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: cross_entropy(X, T, variant="binned"), UnknownNameError, "variant of cross_entropy"),
    (lambda: cross_entropy(X, T, reduction="avg"), UnknownNameError, "Known: mean, none, sum"),
    (lambda: cross_entropy(X, X), TypeError, "class indices in int64 .* probabilities are not"),
    (lambda: cross_entropy(X, T.int()), TypeError, "got torch.int32"),
    (lambda: cross_entropy(X, T[:1]), UsageError, r"target has shape \(1,\), .* \(2, 3\)"),
    (lambda: cross_entropy(torch.tensor(1.0), T[0]), UsageError, "without its classes"),
    (lambda: cross_entropy(X, T, torch.ones(2)), UsageError, r"weight has shape \(2,\)"),
    (lambda: cross_entropy(X, T, torch.ones(3).double()), TypeError, "weight in the dtype of the"),
    (
        lambda: cross_entropy(X, T, torch.ones(3, requires_grad=True)),
        TypeError,
        "no derivative by weight",
    ),
    (lambda: cross_entropy(X, T, label_smoothing=1.5), UsageError, "in .0, 1., got 1.5"),
    (lambda: cross_entropy(X.int(), T), TypeError, "takes float64, .*; got int32"),
    (lambda: cross_entropy(X, T, threads=0), UsageError, "threads must be at least 1"),
    (lambda: cross_entropy([1.0], T), TypeError, "as input, got list"),  # type: ignore[arg-type]
    (lambda: cross_entropy(X.to("meta"), T), TypeError, "on cpu or cuda, got one on meta"),
    (lambda: cross_entropy(X, T - 1), IndexError, "target -1 at position 0 is not one of the 3"),
    (lambda: cross_entropy(X, T + 1), IndexError, "target 3 at position 1 is not one of the 3"),
    (lambda: cross_entropy(X[:, :0], T), IndexError, "target 0 at position 0 is not one of the 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    case = Case(4, 7, dtype, 13)
    ops = torch.ops.nondet_probe
    options = (case.target, case.weight, IGNORED, 1, 0.1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        leaf = case.x.detach().clone().requires_grad_()
        torch.library.opcheck(ops.cross_entropy_forward.default, (leaf, *options, variant, 2))
    torch.library.opcheck(ops.cross_entropy.default, (case.x, *options, variant, 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck_backward(dtype: torch.dtype) -> None:
    case = Case(4, 7, dtype, 13)
    ops = torch.ops.nondet_probe
    for reduction in (0, 1):
        options = (case.target, case.weight, IGNORED, reduction, 0.1)
        loss, *kept = ops.cross_entropy_forward(case.x, *options, "fixed_order", 2)
        given = (loss, case.x, *options, *kept, 2)
        torch.library.opcheck(ops.cross_entropy_backward.default, given)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    case = Case(7, 5, torch.float64, 14)
    for options in OPTIONS:
        # Seven rows are one block of `atomic`: nothing varies.
        assert torch.autograd.gradcheck(
            lambda x, o=options: cross_entropy(x, case.target, case.weight, variant=variant, **o),
            (case.x.clone().requires_grad_(),),
            nondet_tol=0.0,
        )


def test_compiled_code_gives_the_same_bits() -> None:
    case = Case(40, 65, torch.float32, 15)

    def loss(x: Tensor) -> Tensor:
        return cross_entropy(x * 2, case.target, case.weight)

    results = []
    for run in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        leaf = case.x.clone().requires_grad_()
        found = run(leaf)
        found.backward()
        assert leaf.grad is not None
        results.append((bits_of(found.detach()), bits_of(leaf.grad)))
    assert results[0] == results[1]


def test_computed_is_what_the_kernels_compute_in() -> None:
    assert [str(computed(torch.ones(1, dtype=dtype)).dtype) for dtype in DTYPES] == [
        "float64",
        "float32",
        "float32",
        "float32",
    ]
