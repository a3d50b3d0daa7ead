"""Which change each of several twins gets, and at which steps; all that can be refused is, here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.parameter import UninitializedParameter

from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.probe.follower import Flip
from nondet_probe.records.fault import Fault

__all__ = ["Change", "at_step", "checked_steps", "flips", "numbered"]

Change = Flip | Fault


def at_step(change: Change, step: int) -> Change:
    return replace(change, step=step)


def checked_steps(at: Sequence[int], steps: int) -> list[int]:
    """The steps of the change, in their order. Raises UsageError for what the run does not have."""
    allowed = f"whole numbers from 0 to {steps - 1} are allowed, each once: the run has {steps}"
    for step in at:
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < steps:
            raise UsageError(f"at: there is no step {step!r}; {allowed} steps")
    if not at:
        raise UsageError(f"at: no step is given; {allowed} steps")
    if len(set(at)) < len(at):
        twice = next(step for step in at if list(at).count(step) > 1)
        raise UsageError(f"at: step {twice} is given twice; {allowed} steps")
    return sorted(at)


def numbered(fault: Fault, twins: int) -> list[Change]:
    """The draws of `fault`, from its number on; of "paper_stem" its seeds, as the original does it:
    two of those may be the same. Raises UsageError where an index leaves nothing to draw."""
    if twins > 1 and fault.index is not None:
        raise UsageError(
            f"twins={twins}: they differ in the element, and the fault names one by its index; "
            "give it a seed in place of the index"
        )
    if fault.change == "paper_stem":
        assert fault.seed is not None, "it draws with a seed"
        return [replace(fault, seed=fault.seed + place) for place in range(twins)]
    return [replace(fault, number=fault.number + place) for place in range(twins)]


def flips(
    model: torch.nn.Module,
    twins: int,
    *,
    seed: int,
    name: str | None = None,
    index: int | None = None,
    bit: int = 0,
) -> list[Change]:
    """One bit of one parameter: without `index` of as many elements, drawn without replacement with
    a generator of its own. As `nondet_probe.twin` has its arguments."""
    name = _parameter(model, name)
    if index is not None:
        if twins > 1:
            raise UsageError(
                f"twins={twins}: they differ in the element, and index={index} is one; leave the "
                "index out, then elements are drawn with the seed"
            )
        return [Flip(name, index, bit)]
    elements = model.get_parameter(name).numel()
    if twins > max(elements, 1):
        raise UsageError(
            f"twins={twins}: parameter {name!r} has {elements} elements, and none is drawn twice; "
            f"allowed are 1 to {elements}, or a fault over more tensors"
        )
    own = torch.Generator().manual_seed(seed)
    found: dict[int, None] = {}
    while len(found) < twins:
        found[int(torch.randint(max(elements, 1), (), generator=own))] = None
    return [Flip(name, place, bit) for place in found]


def _parameter(model: torch.nn.Module, name: str | None) -> str:
    parameters = dict(model.named_parameters())
    for key, value in parameters.items():
        if isinstance(value, UninitializedParameter):
            raise UsageError(
                f"parameter {key!r} has no values yet (a lazy module): call the model once on a "
                "batch in the workload function"
            )
    if name is None:
        floating = [key for key, value in parameters.items() if value.is_floating_point()]
        if not floating:
            raise UsageError("the model has no floating-point parameter whose bit can be flipped")
        return next((key for key in floating if parameters[key].dim() >= 2), floating[0])
    if name not in parameters:
        raise unknown_name("parameter", name, parameters)
    return name
