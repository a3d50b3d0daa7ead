"""How an op becomes an operator of torch: seen by dispatch modes, torch.compile and autograd.

Ops are registered piece by piece: `torch.library.custom_op` would import torch._dynamo on the first
call, some two seconds, and take 12 us on every one. What a small call costs is counted here. Where
nothing but autograd would see a call, its kernel is called as the function that it is: to find out
takes 0.9 to 1.6 us, the way through the dispatcher 1.8 to 3.1, with the number of arguments, and 4
more with an autograd key that has a Python formula. Calls that need a gradient take their formula
with them, as an `autograd.Function` made here: the one that torch would make costs 20 us more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.torch_private import (
    OpOverload,
    below_autograd,
    calls_are_watched,
    forward_mode_is_on,
    transforms_are_on,
)
from nondet_probe.ops import via_c

__all__ = ["define"]


def define(
    op: str,
    schema: str,
    *,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    cuda: bool = False,
) -> Callable[..., Any]:
    """Register `nondet_probe::<op>` and return the function that calls it.

    schema: "(Tensor x, str variant, int? threads=None) -> Tensor"; nothing is mutated or aliased.
    kernel: the computation; a view of memory that it made is no result. cuda: whether it takes
    tensors on cuda as well. fake: shapes and dtypes of the result alone, for tensors without data.
    backward with setup_context: the formula in reverse mode, as `torch.library.register_autograd`
    takes them; without them a tensor that requires grad is refused.

    The function takes positional arguments only, in the order of the schema. It raises TypeError
    for a tangent (torch would take it for zero) and for a tensor on another device.
    """
    name = f"nondet_probe::{op}"
    torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in ("CPU", "CUDA") if cuda else ("CPU",):
        torch.library.impl(name, device, kernel)
    torch.library.register_fake(name, fake)
    if backward is not None:
        torch.library.register_autograd(name, backward, setup_context=setup_context)
    overload: OpOverload = getattr(torch.ops.nondet_probe, op).default
    look = via_c.look_at([_types(str(one.type)) for one in overload._schema.arguments])

    def dispatched(*given: Any) -> Any:
        with below_autograd():
            return overload(*given)

    formula = overload, setup_context, backward
    dispatched_with_gradient = _with_gradient(op, dispatched, *formula)
    direct_with_gradient = _with_gradient(op, kernel, *formula)

    def call(*given: Any) -> Any:
        if torch.compiler.is_compiling():
            return overload(*given)
        fit = look(given)
        if fit and not calls_are_watched(name):
            run, run_with_gradient = kernel, direct_with_gradient
            needs_gradient = fit == via_c.FITS_WITH_GRADIENT
        else:
            run, run_with_gradient = dispatched, dispatched_with_gradient
            needs_gradient = _check(op, given, cuda)
        if not needs_gradient or not torch.is_grad_enabled():
            return run(*given)
        if backward is None:
            raise TypeError(f"{op} has no derivative; pass x.detach()")
        if transforms_are_on():  # which an autograd.Function of our own does not take
            return overload(*given)
        return run_with_gradient(*given)

    return call


_TYPES: dict[str, tuple[type, ...]] = {
    "Tensor": via_c.PLAIN_TENSORS,
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str": (str,),
}


def _types(kind: str) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Types of the values that the dispatcher hands on as they are for an argument of this kind,
    and of a list's elements."""
    if kind.startswith("Optional["):
        types, elements = _types(kind[9:-1])
        return (*types, type(None)), elements
    if kind.startswith("List["):
        return (list,), _types(kind[5:-1])[0]
    return _TYPES[kind], ()


def _check(op: str, given: tuple[Any, ...], cuda: bool) -> bool:
    """Whether a tensor among the arguments of a call through the dispatcher, or in a list among
    them, requires grad. TypeError for one elsewhere than the op takes or than the others, or not
    dense, or with a tangent."""
    needs_gradient = False
    first: Tensor | None = None
    for value in itertools.chain(given, *(one for one in given if isinstance(one, list))):
        if not isinstance(value, Tensor):
            continue
        # What the dispatcher would refuse at length, in the name of all its backends.
        if not (value.is_cpu or (cuda and value.is_cuda)):
            taken = "cpu or cuda" if cuda else "cpu"
            raise TypeError(
                f"{op} takes tensors on {taken}, got one on {value.device}; pass x.cpu()"
            )
        first = value if first is None else first
        if value.device != first.device:
            raise TypeError(
                f"{op} takes tensors on one device, got {first.device} and {value.device}; "
                "move one of them"
            )
        if value.layout is not torch.strided:
            raise TypeError(
                f"{op} takes dense tensors, got layout {value.layout}; pass x.to_dense()"
            )
        if forward_mode_is_on():
            _refuse_tangent(op, value)
        needs_gradient = needs_gradient or value.requires_grad
    return needs_gradient


def _refuse_tangent(op: str, tensor: Tensor) -> None:
    dual = torch.autograd.forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    if dual.tangent is not None:
        raise TypeError(f"{op} has no forward-mode derivative; use reverse mode (backward)")


def _with_gradient(
    op: str,
    run: Callable[..., Any],
    overload: OpOverload,
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any] | None,
) -> Callable[..., Any]:
    """What `torch.library.register_autograd` makes of the formula, without what it needs to be
    called by the dispatcher."""
    arguments = overload._schema.arguments
    defaults = tuple(argument.default_value for argument in arguments)

    def forward(ctx: Any, *given: Any) -> Any:
        given += defaults[len(given) :]
        output = run(*given)
        if setup_context is not None:
            setup_context(ctx, given, output)
        return output

    lists = [at for at, one in enumerate(arguments) if str(one.type) in _TENSOR_LISTS]
    if lists and backward is not None:
        return _with_gradient_of_list(op, lists[0], len(arguments), forward, backward)
    return _function(op, forward, backward or forward)


_TENSOR_LISTS = ("List[Tensor]", "List[Optional[Tensor]]")


def _with_gradient_of_list(
    op: str,
    at: int,
    arguments: int,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
) -> Callable[..., Any]:
    """The same where argument `at` is a list of tensors: autograd sees those that are arguments
    themselves, so they stand in the place of their list on the way through it."""

    def nested(spread: tuple[Any, ...]) -> tuple[Any, ...]:
        end = at + len(spread) - arguments + 1
        return (*spread[:at], list(spread[at:end]), *spread[end:])

    def forward_spread(ctx: Any, *spread: Any) -> Any:
        return forward(ctx, *nested(spread))

    def backward_spread(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        spread = ctx.needs_input_grad
        ctx.needs_input_grad = nested(spread)
        found = backward(ctx, *gradients)
        ctx.needs_input_grad = spread
        of_list = found[at] or [None] * (len(spread) - arguments + 1)
        return (*found[:at], *of_list, *found[at + 1 :])

    apply = _function(op, forward_spread, backward_spread)
    return lambda *given: apply(*given[:at], *given[at], *given[at + 1 :])


def _function(
    op: str, forward: Callable[..., Any], backward: Callable[..., Any]
) -> Callable[..., Any]:
    formula = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"Backward_nondet_probe_{op}", (torch.autograd.Function,), formula)
    # The method of the class itself looks for transforms first, which are off: 2 us.
    apply: Callable[..., Any] = super(torch.autograd.Function, function).apply
    return apply
