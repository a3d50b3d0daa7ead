"""embedding: the gradient's promises (the trio), padding, frequencies, refusals, dispatcher."""

import platform
from collections.abc import Callable

import pytest
import torch
from cells import changed_modes, check_operator, distinct, indices, scatter_bound, within
from generators import bits_of, from_bits, normal
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, embedding, embedding_ref, variants
from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits, tensor_of_bits

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("embedding")]
ORDERED = [v.name for v in variants("embedding") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]


def gradient_of(
    input: Tensor,
    rows: int,
    of_result: Tensor,
    padding_idx: int | None = None,
    **keywords: object,
) -> Tensor:
    """What backward() leaves in weight.grad."""
    weight = torch.zeros(rows, of_result.shape[-1], dtype=of_result.dtype, requires_grad=True)
    embedding(input, weight, padding_idx, **keywords).backward(of_result)
    assert weight.grad is not None
    return weight.grad


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over runs, threads 1 to 8 and instruction sets, on sums that feel their order."""
    n, columns = 9000, 17
    of_result = normal(n * columns, dtype, 1).reshape(n, columns)
    patterns = indices(n, 300)
    for name in ("all equal", "zipf"):
        input = patterns[name]

        def compute(threads: int, input: Tensor = input) -> list[int]:
            return bits_of(gradient_of(input, 300, of_result, variant=variant, threads=threads))

        expected = compute(1)
        for threads in (1, 2, 3, 4, 5, 6, 7, 8):
            assert compute(threads) == expected, (name, threads)
        for isa in _C.available_isas():
            monkeypatch.setenv("NONDET_PROBE_ISA", isa)
            assert compute(2) == expected, (name, isa)
        monkeypatch.delenv("NONDET_PROBE_ISA")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    n = 1000
    of_result = normal(2 * n, dtype, 5).reshape(n, 2)
    for name, input in indices(n, 40).items():
        found = gradient_of(input, 40, of_result, variant=variant, threads=2)
        for row in set(input.tolist()):
            for column in range(2):
                addends = of_result[input == row, column]
                bound = scatter_bound(variant, addends, of_result)
                assert within(found[row, column], addends, bound), (name, row)


def test_the_check_of_bounds_can_fail() -> None:
    of_result = normal(1000, torch.float32, 5)
    for variant in VARIANTS:
        found = gradient_of(
            torch.zeros(1000, dtype=torch.int64), 1, of_result.reshape(-1, 1), variant=variant
        )
        beyond = from_bits([bits_of(found)[0] + 400_000], of_result.dtype)
        assert not within(beyond, of_result, scatter_bound(variant, of_result, of_result))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atomic_is_seen_to_vary(dtype: torch.dtype) -> None:
    input = indices(250_000, 3)["uniform"]
    of_result = normal(250_000 * 4, dtype, 2).reshape(-1, 4)

    def compute(threads: int = 2) -> Tensor:
        return gradient_of(input, 3, of_result, variant="atomic", threads=threads)

    assert distinct(compute, enough=2, most=500) == 2
    assert distinct(lambda: compute(1), enough=2, most=5) == 1


def test_exact_is_the_same_in_any_order() -> None:
    n = 3000
    input, of_result = indices(n, 40)["zipf"], normal(2 * n, torch.float32, 3).reshape(n, 2)
    expected = bits_of(gradient_of(input, 40, of_result))
    for seed in range(10):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        assert bits_of(gradient_of(input[order], 40, of_result[order])) == expected


# ---- exact, padding, frequencies


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [False, True])
def test_exact_is_the_reference(dtype: torch.dtype, scale: bool) -> None:
    for columns in (1, 5):
        of_result = normal(300 * columns, dtype, 4).reshape(20, 15, columns)
        for name, input in indices(300, 9).items():
            for padding_idx in (None, 0, -5):
                given = (input.reshape(20, 15), padding_idx)
                found = gradient_of(given[0], 9, of_result, padding_idx, scale_grad_by_freq=scale)
                expected = embedding_ref(
                    of_result, given[0], 9, padding_idx, scale_grad_by_freq=scale
                )
                assert bits_of(found) == bits_of(expected), (name, padding_idx)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_padding_row_gets_no_gradient(variant: str) -> None:
    of_result = torch.full((6, 2), float("inf"))
    of_result[1:3] = 1.0
    input = torch.tensor([4, 0, 0, 4, 4, 4], dtype=torch.int32)
    for padding_idx in (4, -1):
        for scale in (False, True):
            found = gradient_of(
                input, 5, of_result, padding_idx, scale_grad_by_freq=scale, variant=variant
            )
            row = 1.0 if scale else 2.0
            assert found.tolist() == [[row, row], *[[0.0, 0.0]] * 4]
            assert bits_of(found)[2:] == [0] * 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_frequencies_divide_the_rounded_sum_once(dtype: torch.dtype) -> None:
    """For every variant: the gradient without frequencies, divided exactly, rounded."""
    n = 2000
    input, of_result = indices(n, 30)["zipf"], normal(n, dtype, 8).reshape(n, 1)
    counts = torch.bincount(input, minlength=30).clamp(min=1).tolist()
    for variant in ORDERED:
        sums = gradient_of(input, 30, of_result, variant=variant)
        found = gradient_of(input, 30, of_result, scale_grad_by_freq=True, variant=variant)
        for row, count in enumerate(counts):
            whole = exact_sum(sums[row])
            expected = round_to_bits(whole / count if whole else whole, dtype)
            assert bits_of(found[row]) == [expected], (variant, count)


def test_frequencies_near_ties() -> None:
    """Quotients next to half-way between two results, where rounding twice goes wrong."""
    for dtype in DTYPES:
        form = FORMATS[dtype]
        one = bits_of(torch.ones(1, dtype=dtype))[0]
        for count in (3, 5, 7, 11, 255, 257):
            last = [from_bits([one + k], dtype) for k in (1, 2, 3, (1 << form.fraction_bits) - 1)]
            x = torch.cat([*last, from_bits([1, 2, 3, 5], dtype)])
            index = torch.arange(8).repeat(count)
            of_result = torch.cat([x, x.new_zeros(8 * (count - 1))]).reshape(-1, 1)
            found = gradient_of(index, 8, of_result, scale_grad_by_freq=True)
            expected = [round_to_bits(exact_sum(x[i : i + 1]) / count, dtype) for i in range(8)]
            assert bits_of(found) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_specials(variant: str) -> None:
    form = FORMATS[torch.float32]
    inf = float("inf")
    of_result = torch.tensor([[inf], [1.0], [inf], [-inf], [-float("nan")], [-0.0]])
    input = torch.tensor([0, 0, 1, 1, 2, 3])
    for scale in (False, True):
        found = gradient_of(input, 5, of_result, scale_grad_by_freq=scale, variant=variant)
        assert bits_of(found) == [form.infinity, form.quiet_nan, form.quiet_nan, 0, 0]


# ---- forward


def test_the_forward_pass_is_a_copy() -> None:
    for dtype in DTYPES:
        weight = from_bits([FORMATS[dtype].infinity + k for k in range(-6, 6)], dtype).reshape(6, 2)
        for shape in ((), (1,), (2, 3), (0,), (2, 0, 3)):
            input = torch.arange(torch.Size(shape).numel()).reshape(shape) % 6
            for same in (weight, weight.t().contiguous().t()):
                found = embedding(input, same)
                assert found.shape == (*shape, 2)
                assert bits_of(found) == bits_of(weight[input])
                assert found.data_ptr() != same.data_ptr() or found.numel() == 0


@pytest.mark.parametrize("variant", ORDERED)
def test_rows_that_are_not_named_change_nothing(variant: str) -> None:
    """With many of them the sums are made elsewhere, and copied."""
    input, of_result = indices(500, 40)["zipf"], normal(1500, torch.float32, 3).reshape(500, 3)
    few = gradient_of(input, 40, of_result, 3, variant=variant, scale_grad_by_freq=True)
    many = gradient_of(input, 501, of_result, 3, variant=variant, scale_grad_by_freq=True)
    assert bits_of(many) == bits_of(few) + [0] * (461 * 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_input_gives_no_gradient(variant: str) -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    found = gradient_of(none, 4, torch.zeros(0, 3, 2), variant=variant, scale_grad_by_freq=True)
    assert bits_of(found) == [0] * 8


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the modes of x86")
@pytest.mark.parametrize("dtype", DTYPES)
def test_modes_of_the_processor_change_nothing(dtype: torch.dtype) -> None:
    of_result = torch.cat([from_bits([1, 2, 3] * 5000, dtype), normal(15_000, dtype, 12)])
    input = torch.cat([indices(5000, 50)["zipf"], indices(5000, 50)["uniform"] + 50])

    def compute() -> list[int]:
        return [
            bits
            for variant in ORDERED
            for scale in (False, True)
            for bits in bits_of(
                gradient_of(
                    input,
                    100,
                    of_result.reshape(-1, 3),
                    variant=variant,
                    scale_grad_by_freq=scale,
                    threads=2,
                )
            )
        ]

    expected = compute()
    for mode, found in changed_modes(compute).items():
        assert found == expected, mode


INPUT, W = torch.tensor([[0, 3]]), torch.ones(4, 2)
REFUSALS: list[tuple[Callable[[], Tensor], type[Exception], str]] = [
    (lambda: embedding(INPUT, W, variant="exakt"), UnknownNameError, "did you mean 'exact'"),
    (lambda: embedding([0], W), TypeError, "as torch.Tensor, got list and Tensor"),
    (lambda: embedding(INPUT.float(), W), TypeError, "int64 and int32 as input, got torch.float32"),
    (lambda: embedding(INPUT, W.int()), TypeError, "takes float64, .*; got int32"),
    (lambda: embedding(INPUT, W[0]), UsageError, r"two dimensions, got shape \(2,\)"),
    (lambda: embedding(INPUT, W, 4), UsageError, r"in \[-4, 4\), got 4"),
    (lambda: embedding(INPUT, W, -5), UsageError, r"in \[-4, 4\), got -5"),
    (
        lambda: embedding(INPUT + 1, W),
        IndexError,
        "index 4 at position 1 is out of range for 4 rows",
    ),
    (
        lambda: embedding(INPUT - 1, W),
        IndexError,
        "index -1 at position 0 is out of range for 4 rows",
    ),
    (lambda: embedding(INPUT, W.to("meta")), TypeError, "on cpu or cuda, got one on meta"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    weight = normal(27, dtype, 6).reshape(9, 3).requires_grad_()
    input = indices(20, 9)["zipf"].reshape(4, 5)
    check_operator("embedding", (input, weight, 2, True, variant, 2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck_of_the_derivative(variant: str) -> None:
    of_result = normal(60, torch.float64, 6).reshape(4, 5, 3).requires_grad_()
    input = indices(20, 9)["zipf"].reshape(4, 5)
    check_operator("embedding_backward", (of_result, input, 9, 2, True, variant, 2))


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str, scale: bool) -> None:
    """20 rows are work for one thread: even `atomic` differs by nothing (nondet_tol=0)."""
    input = indices(20, 4)["zipf"].reshape(4, 5)
    weight = normal(8, torch.float64, 6).reshape(4, 2).requires_grad_()
    of_result = normal(40, torch.float64, 7).reshape(4, 5, 2).requires_grad_()
    if not scale:  # with frequencies and padding it is not the derivative, as in torch
        forward = lambda w: embedding(input, w, variant=variant)  # noqa: E731
        assert torch.autograd.gradcheck(forward, (weight,), nondet_tol=0.0)
        assert torch.autograd.gradgradcheck(lambda w: forward(w * w), (weight,), nondet_tol=0.0)
    backward = torch.ops.nondet_probe.embedding_backward
    assert torch.autograd.gradcheck(
        lambda g: backward(g, input, 4, 1, scale, variant), (of_result,), nondet_tol=0.0
    )


def test_compiled_code_gives_the_same_bits() -> None:
    input, of_result = indices(500, 9)["zipf"], normal(1000, torch.float32, 8).reshape(500, 2)
    for variant in ORDERED:
        compiled = torch.compile(
            lambda w, v=variant: embedding(input, w * 3, 1, variant=v),
            backend="aot_eager",
            fullgraph=True,
        )
        weight = torch.ones(9, 2, requires_grad=True)
        compiled(weight).backward(of_result)
        assert weight.grad is not None
        expected = gradient_of(input, 9, of_result, 1, variant=variant) * 3
        assert bits_of(weight.grad) == bits_of(expected)


def test_the_reference_divides_the_rounded_sum() -> None:
    of_result = torch.tensor([[1.0], [2.0**-24], [2.0**-24]])
    found = embedding_ref(of_result, torch.zeros(3, dtype=torch.int64), 1, scale_grad_by_freq=True)
    third = round_to_bits(exact_sum(torch.tensor([1.0 + 2.0**-23])) / 3, torch.float32)
    assert bits_of(found) == bits_of(tensor_of_bits(third, torch.float32).reshape(1, 1))
