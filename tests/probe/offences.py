"""Ops that are nondeterministic on every machine: each call adds another number of ulps.

They are what a probe must find, planted in the forward pass, in place, and in a backward pass.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch

_calls = itertools.count(1)


def _moved(x: torch.Tensor) -> torch.Tensor:
    """`x` with its first element some ulps away, another number of them in each call."""
    y = x.detach().clone(memory_format=torch.contiguous_format)
    y.view(torch.int32).view(-1)[0] += next(_calls)
    return y


@torch.library.custom_op("ndp_test::wobble", mutates_args=())
def wobble(x: torch.Tensor) -> torch.Tensor:
    return _moved(x)


@wobble.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


wobble.register_autograd(lambda ctx, gradient: gradient)


@torch.library.custom_op("ndp_test::wobble_", mutates_args=("x",))
def wobble_(x: torch.Tensor) -> None:
    x.copy_(_moved(x))


@torch.library.custom_op("ndp_test::steady", mutates_args=())
def steady(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@torch.library.custom_op("ndp_test::liar", mutates_args=())
def liar(x: torch.Tensor) -> torch.Tensor:
    """Writes its operand, which its schema does not say."""
    x.add_(1)
    return x.clone()


class WobblyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return torch.ops.ndp_test.wobble(gradient)  # the planted line


class Numpy(torch.autograd.Function):
    """A kernel that torch's dispatcher never sees."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient * 2


def line_of(text: str, file: str) -> int:
    """Number of the only line of `file` that ends with `text`."""
    with open(file, encoding="utf-8") as lines:
        numbers = [number for number, line in enumerate(lines, 1) if line.rstrip().endswith(text)]
    assert len(numbers) == 1, f"{text!r} is in lines {numbers} of {file}"
    return numbers[0]
