"""How an op becomes an operator of torch: seen by dispatch modes, torch.compile and autograd.

Ops are registered piece by piece: `torch.library.custom_op` would import torch._dynamo on the first
call, some two seconds, and take 12 us on every one. What a small call costs is counted here: 4.5 us
for a kernel written in Python, 4 more for an autograd key with a Python formula. So calls that need
no gradient go in below autograd. Calls that need one take its formula with them, as an
`autograd.Function` made here: the one that torch would make costs 20 us more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.torch_private import (
    below_autograd,
    forward_mode_is_on,
    transforms_are_on,
)

__all__ = ["define"]


def define(
    op: str,
    schema: str,
    *,
    cpu: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register `nondet_probe::<op>` and return the function that calls it.

    schema: "(Tensor x, str variant, int? threads=None) -> Tensor"; nothing is mutated or aliased.
    cpu: the kernel. fake: shapes and dtypes of the result alone, for tensors without data. backward
    with setup_context: the formula in reverse mode, as `torch.library.register_autograd` takes
    them; without them a tensor that requires grad is refused.

    The function takes positional arguments only, in the order of the schema. It raises TypeError
    for a tangent (torch would take it for zero) and for a tensor on another device.
    """
    name = f"nondet_probe::{op}"
    torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, "CPU", cpu)
    torch.library.register_fake(name, fake)
    if backward is not None:
        torch.library.register_autograd(name, backward, setup_context=setup_context)
    overload = getattr(torch.ops.nondet_probe, op).default
    with_gradient = _with_gradient(op, overload, setup_context, backward)

    def call(*given: Any) -> Any:
        if torch.compiler.is_compiling():
            return overload(*given)
        needs_gradient = False
        for value in given:
            if isinstance(value, Tensor):
                # What the dispatcher would refuse at length, in the name of all its backends.
                if not value.is_cpu:
                    raise TypeError(_elsewhere(op, value))
                if value.layout is not torch.strided:
                    raise TypeError(
                        f"{op} takes dense tensors, got layout {value.layout}; pass x.to_dense()"
                    )
                needs_gradient = needs_gradient or value.requires_grad
        if forward_mode_is_on():
            _refuse_tangents(op, given)
        if needs_gradient and torch.is_grad_enabled():
            if backward is None:
                raise TypeError(f"{op} has no derivative; pass x.detach()")
            if transforms_are_on():
                return overload(*given)
            return with_gradient(*given)
        with below_autograd():
            return overload(*given)

    return call


def _with_gradient(
    op: str,
    overload: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any] | None,
) -> Callable[..., Any]:
    """What `torch.library.register_autograd` makes of the formula, without what it needs to be
    called by the dispatcher."""

    def forward(ctx: Any, *given: Any) -> Any:
        with below_autograd():
            output = overload(*given)
        if setup_context is not None:
            setup_context(ctx, given, output)
        return output

    formula = {"forward": staticmethod(forward), "backward": staticmethod(backward or forward)}
    function: Any = type(f"Backward_nondet_probe_{op}", (torch.autograd.Function,), formula)
    apply: Callable[..., Any] = function.apply
    return apply


def _elsewhere(op: str, tensor: Tensor) -> str:
    return f"{op} takes tensors on cpu, got one on {tensor.device}; pass x.cpu()"


def _refuse_tangents(op: str, given: tuple[Any, ...]) -> None:
    for value in given:
        if not isinstance(value, Tensor):
            continue
        dual = torch.autograd.forward_ad.unpack_dual(value)  # type: ignore[no-untyped-call]
        if dual.tangent is not None:
            raise TypeError(f"{op} has no forward-mode derivative; use reverse mode (backward)")
