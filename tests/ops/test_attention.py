"""attention on CPU: a plain reference, as exact and as invariant as what it is made of."""

from __future__ import annotations

import math

import pytest
import torch
from generators import normal
from torch import Tensor
from torch.nn import functional

from nondet_probe.bits import bit_equal
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import attention

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def given(dtype: torch.dtype, queries: int = 9, keys: int = 13, d: int = 8) -> list[Tensor]:
    shapes = [(2, 3, queries, d), (2, 3, keys, d), (2, 3, keys, d)]
    return [
        normal(math.prod(shape), dtype, seed).reshape(shape) for seed, shape in enumerate(shapes)
    ]


def results(inputs: list[Tensor], causal: bool, **how: object) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    result = attention(*leaves, causal, **how)
    gradient = normal(result.numel(), result.dtype, 7).reshape(result.shape)
    return [result.detach(), *torch.autograd.grad(result, leaves, gradient)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_near_the_truth(causal: bool, dtype: torch.dtype) -> None:
    """Scores (below 16), weights and the last product are rounded to the dtype."""
    inputs = given(dtype)
    query, key, value = (x.double() for x in inputs)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    assert scores.abs().max() < 16
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    share = scores.softmax(-1)
    u = torch.finfo(dtype).eps / 2
    bound = (2 * 3 * 16 + 100) * u * (share @ value.abs()) + 1e-15
    found = attention(*inputs, causal).double()
    assert bool(((found - share @ value).abs() <= bound).all())
    assert not bool(((found + 2 * bound - share @ value).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_for_any_thread_count_and_batch(dtype: torch.dtype) -> None:
    inputs = given(dtype, 70, 90)
    expected = results(inputs, True, threads=1)
    for threads in (2, 3, 8):
        for a, b in zip(expected, results(inputs, True, threads=threads), strict=True):
            assert bit_equal(a, b)
    alone = attention(*(x[1:2, 2] for x in inputs), True)
    assert bit_equal(alone, expected[0][1:2, 2])


def test_gradients() -> None:
    inputs = [x.requires_grad_() for x in given(torch.float64, 3, 4, 2)]
    for causal in (False, True):
        assert torch.autograd.gradcheck(lambda *x, c=causal: attention(*x, c, 0.5), inputs)


def test_arguments_are_those_of_torch() -> None:
    inputs = given(torch.float64)
    theirs = functional.scaled_dot_product_attention(*inputs, is_causal=True, scale=0.3)
    assert (attention(*inputs, True, 0.3) - theirs).abs().max() < 1e-14


def test_what_is_not_taken() -> None:
    query, key, value = given(torch.float32)
    with pytest.raises(UnknownNameError, match="unknown variant of attention 'fixd_order'; did"):
        attention(query, key, value, variant="fixd_order")
    with pytest.raises(TypeError, match=r"torch\.Tensor as key, got NoneType"):
        attention(query, None, value)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"twice \(..., S, D\)"):
        attention(query, key, value[..., :3])
    with pytest.raises(UsageError, match="equal leading dimensions"):
        attention(query[:1], key, value)
    with pytest.raises(UsageError, match="one key or more"):
        attention(query, key[..., :0, :], value[..., :0, :])
    with pytest.raises(TypeError, match="of one dtype"):
        attention(query.double(), key, value)
    with pytest.raises(TypeError, match="takes float64, float32, bfloat16, float16; got int64"):
        attention(query.long(), key.long(), value.long())
