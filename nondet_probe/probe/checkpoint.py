"""The state of a training put into another copy of it, while it runs: no step is repeated.

What a workload keeps elsewhere than in its state (`nondet_probe.probe.state`), such as a scheduler
in a closure, is not put there: whoever goes on from a checkpoint needs a control that did too.
"""

from __future__ import annotations

from typing import Any

import torch

from nondet_probe.errors import UsageError
from nondet_probe.probe.state import first_difference
from nondet_probe.probe.trees import copy_tree
from nondet_probe.workload import Workload

__all__ = ["copy_state"]


def copy_state(run: Workload, copy: Workload) -> None:
    """Give `copy` the parameters, buffers, gradients, modes and optimizer state of `run`.

    Its tensors stay where they are, with their strides; what the optimizer keeps is copied as a
    batch is. Raises UsageError where the state is not the same afterwards.
    """
    mine, theirs = _tensors(run.model), _tensors(copy.model)
    if [one.shape for one in mine] != [one.shape for one in theirs]:
        raise UsageError("the run has parameters or buffers of other shapes than as it was built")
    if _layout(run) != _layout(copy):
        raise UsageError("the run has other modules or parameter groups than as it was built")
    with torch.no_grad():
        for one, other in zip(mine, theirs, strict=True):
            other.data.copy_(one.data)
    parameters = list(run.model.parameters())
    [gradients] = copy_tree([one.grad for one in parameters], 1)
    for one, other, gradient in zip(parameters, copy.model.parameters(), gradients, strict=True):
        other.requires_grad_(one.requires_grad)
        other.grad = gradient
    for module, twin in zip(run.model.modules(), copy.model.modules(), strict=True):
        twin.training = module.training
    if run.optimizer is not None and copy.optimizer is not None:
        _copy_optimizer(run.optimizer, copy.optimizer)
    left = first_difference(run, copy)
    if left is not None:
        raise UsageError(f"{left} cannot be copied from one copy of the workload to another")


def _tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _layout(workload: Workload) -> list[object]:
    groups = workload.optimizer.param_groups if workload.optimizer is not None else []
    names = [name for name, _ in workload.model.named_modules()]
    return [names, [len(group["params"]) for group in groups]]


def _copy_optimizer(mine: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
    # Not load_state_dict: it may change the dtype of what an optimizer keeps.
    for group, theirs in zip(mine.param_groups, other.param_groups, strict=True):
        settings = {key: value for key, value in group.items() if key != "params"}
        theirs.update(copy_tree(settings, 1)[0])
        for one, parameter in zip(group["params"], theirs["params"], strict=True):
            kept: Any = mine.state.get(one)
            if kept is None:
                other.state.pop(parameter, None)
            else:
                [other.state[parameter]] = copy_tree(kept, 1)
