"""softmax and log_softmax: their error, the same bits everywhere, and refusals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from generators import bits_of, from_bits, normal
from rows_oracle import computed, exact_softmax, fractions_of, row_sum, unit
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops import log_softmax, softmax
from nondet_probe.ops.rational import FORMATS, round_to_bits

DTYPES = list(FORMATS)
ISAS = _C.available_isas()
OPS = {"softmax": softmax, "log_softmax": log_softmax}


def matrix(rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return 3 * normal(rows * columns, dtype, seed).reshape(rows, columns)


def run(name: str, x: Tensor, dy: Tensor, threads: int = 1) -> list[list[int]]:
    """The bits of the result and of the gradient."""
    leaf = x.detach().clone().requires_grad_()
    y = OPS[name](leaf, -1, threads=threads)
    y.backward(dy)
    assert leaf.grad is not None
    return [bits_of(y.detach()), bits_of(leaf.grad)]


def kernel_exp(x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    _C.exp(CODES[x.dtype], x.data_ptr(), x.numel(), "", result.data_ptr())
    return result


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_are_the_documented_ones(dtype: torch.dtype) -> None:
    for n in (1, 63, 64, 65, 300, 8300):
        x, dy = matrix(1, n, dtype, n), normal(n, dtype, n + 1)
        wide = torch.from_numpy(computed(x[0]))
        terms = kernel_exp(wide - wide.max())
        y = terms / torch.from_numpy(row_sum(terms.numpy())[None])
        got = run("softmax", x, dy[None])
        assert got[0] == bits_of(y.to(dtype))
        result = computed(y.to(dtype))
        gradient = computed(dy)
        dx = (gradient - row_sum(gradient * result)) * result
        assert got[1] == bits_of(torch.from_numpy(dx).to(dtype))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_are_the_same_everywhere(
    dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, dy = matrix(577, 230, dtype, 1), matrix(577, 230, dtype, 2)
    expected = run(name, x, dy)
    for isa in ISAS:
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        assert run(name, x, dy) == expected, isa
    monkeypatch.delenv("NONDET_PROBE_ISA")
    for threads in range(2, 9):
        assert run(name, x, dy, threads) == expected, threads
    for row in (0, 300, 576):  # a row does not depend on the others
        alone = run(name, x[row : row + 1], dy[row : row + 1])
        assert [bits[row * 230 : row * 230 + 230] for bits in expected] == alone


def place(pattern: int, dtype: torch.dtype) -> int:
    sign = FORMATS[dtype].sign
    return -(pattern & ~sign) if pattern & sign else pattern


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_within_their_bound(dtype: torch.dtype, name: str) -> None:
    for n in (1, 2, 100):
        x = matrix(1, n, dtype, n)[0]
        u, most = unit(dtype), max(fractions_of(x))
        depth = 74 + math.ceil(math.log(n))
        for value, got, exact in zip(
            fractions_of(x),
            bits_of(OPS[name](x, 0)),
            exact_softmax(x, name == "log_softmax"),
            strict=True,
        ):
            if name == "log_softmax":
                error = depth * u + 3 * u * abs(exact)
            else:
                error = (depth + most - value) * u * exact
            low, high = (round_to_bits(exact + side, dtype) for side in (-error, error))
            assert place(low, dtype) <= place(got, dtype) <= place(high, dtype)
            if exact:
                beyond = got ^ 1 << FORMATS[dtype].fraction_bits
                assert not place(low, dtype) <= place(beyond, dtype) <= place(high, dtype)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_specials_take_their_row(
    dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS[dtype]
    minus = form.infinity | form.sign
    x = matrix(5, 70, dtype, 3)
    x[0, 69] = from_bits([form.quiet_nan | form.sign | 1], dtype)[0]
    x[1, 5] = math.inf
    x[2] = -math.inf
    x[3, 1:] = -math.inf
    for isa in ISAS:
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        y = OPS[name](x, 1)
        for row in range(3):
            assert bits_of(y[row]) == [form.quiet_nan] * 70
        first, others = (0, minus) if name == "log_softmax" else (bits_of(x.new_ones(1))[0], 0)
        assert bits_of(y[3]) == [first] + [others] * 69
        assert bits_of(y[4]) == bits_of(OPS[name](x[4], 0))


def test_any_dimension_and_layout() -> None:
    x = normal(4 * 5 * 6, torch.float32, 4).reshape(4, 5, 6)
    for dim in (0, 1, -3):
        last = x.movedim(dim, -1).contiguous()
        assert bits_of(softmax(x, dim).movedim(dim, -1)) == bits_of(softmax(last, -1))
    assert bits_of(softmax(x[::2, :, ::3], 2)) == bits_of(softmax(x[::2, :, ::3].contiguous(), 2))
    assert softmax(torch.tensor(3.0), 0).item() == 1.0
    assert softmax(x[:, :0], 1).shape == (4, 0, 6)
    assert softmax(x[:0], 1).shape == (0, 5, 6)


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: softmax(torch.ones(3, 3), 2), IndexError, r"dim 2 is not in \[-2, 1\]"),
    (lambda: softmax([1.0], 0), TypeError, "softmax takes a torch.Tensor, got list"),  # type: ignore[arg-type]
    (lambda: log_softmax(torch.ones(3).int(), 0), TypeError, "takes float64, .*; got int32"),
    (lambda: softmax(torch.ones(3), 0, threads=0), UsageError, "threads must be at least 1"),
    (
        lambda: softmax(torch.ones(3, device="meta"), 0),
        TypeError,
        "on cpu or cuda, got one on meta",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log", [True, False])
def test_opcheck(log: bool, dtype: torch.dtype) -> None:
    x = matrix(3, 7, dtype).requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        torch.library.opcheck(torch.ops.nondet_probe.softmax.default, (x, log, 2))
        plain = x.detach()
        torch.library.opcheck(
            torch.ops.nondet_probe.softmax_backward.default, (plain, plain, log, 2)
        )


def test_gradients_and_compiled_code() -> None:
    x = matrix(3, 5, torch.float64).requires_grad_()
    for op in OPS.values():
        for dim in (0, 1):
            assert torch.autograd.gradcheck(lambda y, op=op, dim=dim: op(y, dim), (x,))
    compiled = torch.compile(
        lambda y: softmax(y * 3, 1) + log_softmax(y, 0), backend="aot_eager", fullgraph=True
    )
    assert bits_of(compiled(x).detach()) == bits_of(
        (softmax(x * 3, 1) + log_softmax(x, 0)).detach()
    )


def test_the_sum_of_softmax_is_one_within_its_bound() -> None:
    y = softmax(matrix(1, 5000, torch.float64, 5), 1)
    total = sum((Fraction(v) for v in y[0].tolist()), Fraction(0))
    assert abs(total - 1) < 80 * unit(torch.float64)
