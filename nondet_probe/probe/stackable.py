"""Whether a training can be stacked: what is known from its parts, and a rehearsal of its steps.

Refused is what would be another training when it is stacked, and what torch cannot do for many
members at once. In doubt it is refused: the sequential engine follows anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nondet_probe.bits import bit_equal
from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.env.torch_private import hooks_of
from nondet_probe.errors import UsageError
from nondet_probe.probe.members import Members
from nondet_probe.probe.state import first_difference
from nondet_probe.probe.trees import copy_tree
from nondet_probe.workload import Workload

__all__ = ["FAR", "rehearse", "require_stackable"]

ELEMENTWISE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""Optimizers of which each element's update comes from that element's own history alone."""

FAR = 0.1
"""Relative distance (L2, all gradients of the first step together) from the plain run's beyond
which a stacked run is taken for another training: rounding stays orders of magnitude below it."""

_INSTEAD = "follow its twins with the sequential engine"


def require_stackable(workload: Workload) -> None:
    """UsageError, with reason and way out, where its parts tell that it cannot be stacked."""
    for reason in _reasons(workload):
        raise UsageError(f"this training cannot be stacked: {reason}; {_INSTEAD}")


def rehearse(workload: Workload, batch: Any, count: int) -> str | None:
    """Two stacked steps of `count` members that are all the same, and the gradients of the first
    step beside the plain ones.

    Gives the first leaf of the state, or "loss", that some member has with other bits than member
    0: then what a member gets depends on its place in the stack. None where all are the same.

    workload: a build of its own that nothing else uses; batch: is left as it is, and so are the
    random streams. Raises UsageError with torch's reason where a step cannot be stacked, and where
    the gradients are not those of the plain step.
    """
    with preserved_rng():
        streams = RngState.capture()
        members = Members(workload, count)
        stacked, again, plain = copy_tree(batch, 3)
        try:
            losses = members.backward(stacked)
            gradients = {
                name: None if value.grad is None else value.grad[0].clone()
                for name, value in members.parameters.items()
            }
            members.update()
            later = members.step(again)
        except Exception as error:
            raise UsageError(
                f"this training cannot be stacked: its step raises {type(error).__name__}: "
                f"{_first_line(error)}; {_INSTEAD}"
            ) from error
        streams.restore()
        loss = workload.loss(workload.model, plain)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
    expected = float(loss.detach())
    apart = _apart(workload.model, gradients)
    if not apart <= FAR and math.isfinite(expected):
        raise UsageError(
            f"this training cannot be stacked: the gradients of its first step lie {apart:.2g} "
            f"from those of the plain run (relative distance), more than rounding explains, with "
            f"losses {float(losses[0]):.6g} and {expected:.6g}. Its random draws may be laid "
            "out otherwise (dropout inside of attention), or something that acts on the plain run "
            f"does not reach the stacked one; {_INSTEAD}"
        )
    return _place(members, torch.stack([losses, later], dim=1))


def _reasons(workload: Workload) -> Iterator[str]:
    model, optimizer = workload.model, workload.optimizer
    if optimizer is None:
        yield "it has no optimizer, so nothing is trained"
        return
    if workload.step is not None:
        yield "it has a step of its own, of which only its own loop knows what it does"
    kind = type(optimizer)
    if kind not in ELEMENTWISE:
        known = ", ".join(one.__name__ for one in ELEMENTWISE)
        yield (
            f"{kind.__name__} may mix the elements of several members; stacked can be torch's own "
            f"{known}"
        )
    if "step" in vars(optimizer):
        yield "the optimizer's step was replaced on this object (a scheduler does that too)"
    for hook in hooks_of(optimizer):
        yield f"the optimizer has hooks ({hook}), which would see all members at once"
    yield from _about_tensors(model, optimizer)
    for path, module in model.named_modules():
        for hook in hooks_of(module):
            told = repr(path) if path else "the model"
            yield f"module {told} has hooks ({hook}), which would see all members at once"


def _about_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[str]:
    parameters = dict(model.named_parameters())
    owners: dict[int, str] = {}
    for name, value in [*parameters.items(), *model.named_buffers()]:
        if nn.parameter.is_lazy(value):
            yield f"{name!r} has no values yet (a lazy module)"
            return
        if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided:
            yield f"{name!r} is a {type(value).__name__} of layout {value.layout}, no plain tensor"
            return
        for hook in hooks_of(value):
            yield f"parameter {name!r} has hooks ({hook}), which would see all members at once"
        memory = value.untyped_storage().data_ptr()
        if memory and owners.setdefault(memory, name) != name:
            yield f"{owners[memory]!r} and {name!r} share memory, and would not when stacked"
    known = {id(value) for value in parameters.values()}
    for group in optimizer.param_groups:
        if any(id(value) not in known for value in group["params"]):
            yield "the optimizer steps a tensor that is no parameter of the model"
            return


def _place(members: Members, losses: Tensor) -> str | None:
    first = members.member(0)
    for number in range(1, members.count):
        differs = first_difference(first, members.member(number))
        if differs is None and not bit_equal(losses[number], losses[0]):
            differs = "loss"
        if differs is not None:
            return differs
    return None


def _apart(model: nn.Module, gradients: dict[str, Tensor | None]) -> float:
    """Relative L2 distance of the gradients of member 0 from those of the model; inf where one has
    a gradient that the other lacks, or of another layout."""
    apart = norm = 0.0
    for name, value in model.named_parameters():
        mine, theirs = value.grad, gradients[name]
        if mine is None and theirs is None:
            continue
        if mine is None or theirs is None or mine.layout is not theirs.layout:
            return math.inf
        plain = mine.double()
        apart += float((theirs.double() - plain).square().sum())
        norm += float(plain.square().sum())
    return math.sqrt(apart / norm) if norm else math.sqrt(apart)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(". ")
