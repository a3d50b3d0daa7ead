"""What is measured of an op: calls that torch's function and ours take alike, and their bytes.

Each takes the function first, then the inputs as `case_inputs` makes them, and gives the tensors
that are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe.probe.case_inputs import PLACES, Inputs

__all__ = [
    "at_indices",
    "at_places",
    "attention_backward",
    "bincount",
    "bytes_moved",
    "cross_entropy_backward",
    "dim_0",
    "dim_1",
    "embedding_backward",
    "histogram",
    "index_backward",
    "layer_norm_backward",
    "moved_by_loss",
    "moved_by_norm",
    "moved_by_taking",
    "rms_norm_backward",
    "segment_sum",
    "softmax_backward",
]


def bytes_moved(inputs: Inputs, result: Inputs) -> int:
    """Every input read once, every result written once."""
    return _bytes(inputs) + _bytes(result)


def _bytes(several: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in several)


def dim_0(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x, 0)


def dim_1(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x, 1)


def _gradients(result: Tensor, of: Sequence[Tensor], gradient: Tensor | None = None) -> Inputs:
    return torch.autograd.grad(result, of, gradient)


def _leaf(tensor: Tensor) -> Tensor:
    """The same memory, to be differentiated by."""
    return tensor.detach().requires_grad_()


def at_places(function: Callable[..., Tensor], table: Tensor, index: Tensor, x: Tensor) -> Tensor:
    return function(table, 0, index, x)


def at_indices(function: Callable[..., Tensor], table: Tensor, index: Tensor, x: Tensor) -> Tensor:
    return function(table, (index,), x)


def index_backward(
    function: Callable[..., Tensor], table: Tensor, index: Tensor, gradient: Tensor
) -> Inputs:
    leaf = _leaf(table)
    return _gradients(function(leaf, (index,)), [leaf], gradient)


def embedding_backward(
    function: Callable[..., Tensor], table: Tensor, index: Tensor, gradient: Tensor
) -> Inputs:
    leaf = _leaf(table)
    return _gradients(function(index, leaf), [leaf], gradient)


def moved_by_taking(inputs: Inputs, result: Inputs) -> int:
    """Forward, the taken elements are written as well: as many as the gradient has."""
    return bytes_moved(inputs, result) + inputs[2].nbytes


def segment_sum(function: Callable[..., Tensor], x: Tensor, lengths: Tensor) -> Tensor:
    return function(x, lengths=lengths)


def bincount(function: Callable[..., Tensor], index: Tensor, x: Tensor) -> Tensor:
    return function(index, x, PLACES)


def histogram(function: Callable[..., Any], x: Tensor, weight: Tensor) -> Tensor:
    # Edges at multiples of 1/8, which are exact: else an ulp in one moves elements between bins.
    counts: Tensor = function(x, 64, range=(-4.0, 4.0), weight=weight)[0]
    return counts


def layer_norm_backward(
    function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor
) -> Inputs:
    """What is summed over the rows: the gradients of weight and bias. That of x is computed too."""
    leaves = [_leaf(tensor) for tensor in (x, weight, bias)]
    result = function(leaves[0], weight.shape, *leaves[1:])
    return _gradients(result, leaves, gradient)[1:]


def rms_norm_backward(
    function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor
) -> Inputs:
    leaves = [_leaf(tensor) for tensor in (x, weight)]
    result = function(leaves[0], weight.shape, leaves[1])
    return _gradients(result, leaves, gradient)[1:]


def attention_backward(
    function: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor, gradient: Tensor
) -> Inputs:
    leaves = [_leaf(tensor) for tensor in (query, key, value)]
    result = function(*leaves)
    return result.detach(), *_gradients(result, leaves, gradient)


def softmax_backward(function: Callable[..., Tensor], x: Tensor, gradient: Tensor) -> Inputs:
    leaf = _leaf(x)
    result = function(leaf, 1)
    return result.detach(), *_gradients(result, [leaf], gradient)


def cross_entropy_backward(function: Callable[..., Tensor], x: Tensor, target: Tensor) -> Tensor:
    """What is summed over the rows: the mean loss. The gradient is computed too."""
    leaf = _leaf(x)
    loss = function(leaf, target)
    _gradients(loss, [leaf])
    return loss.detach()


def moved_by_norm(inputs: Inputs, result: Inputs) -> int:
    """As matrices the input and a gradient are read, the result and a gradient written."""
    return bytes_moved(inputs, result) + 2 * inputs[0].nbytes


def moved_by_loss(inputs: Inputs, result: Inputs) -> int:
    """Besides, the gradient of the input is written."""
    return bytes_moved(inputs, result) + inputs[0].nbytes
