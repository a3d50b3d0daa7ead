"""What can be said against a fault before its moment has come."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.probe.inject.apply import candidates_of
from nondet_probe.probe.inject.targets import NotThereError, choose, matching, parameters
from nondet_probe.probe.names import Names, joined
from nondet_probe.records.fault import Fault

__all__ = ["called", "check_fault", "meant", "rehearse"]


def rehearse(fault: Fault, names: Names, optimizers: Sequence[Optimizer]) -> None:
    """Raise what injecting it would raise, as far as the models and optimizers tell by now: for a
    gradient as its parameter does, for an activation whether the module is there. What is in a
    batch nobody knows."""
    if fault.site in ("input", "output"):
        meant(fault, names)
    elif fault.site == "gradient":
        choose(fault, parameters(names, optimizers))
    elif fault.site != "batch":
        choose(fault, candidates_of(fault.site, names, optimizers))


def check_fault(
    fault: Fault, model: nn.Module | None = None, optimizer: Optimizer | None = None
) -> None:
    """Before the training: raise what is known to be wrong with a fault for it."""
    if model is not None or fault.site == "rng":
        with contextlib.suppress(NotThereError):
            rehearse(fault, Names(model), [] if optimizer is None else [optimizer])


def meant(fault: Fault, names: Names) -> str:
    """The path of the module whose activation is meant. UnknownNameError, UsageError for several:
    how many elements they give is not known beforehand, so none can be drawn among them."""
    paths = [
        joined(base, names.within("", own)[1])
        for base, root in names.roots()
        for own, _ in root.named_modules()
    ]
    every = [called(path, names) for path in paths]
    # "encoder: 1" is one of its tensors.
    pattern = fault.name.split(": ")[0] if fault.name is not None else None
    found = [paths[place] for place in matching(pattern, every)]
    if not found:
        raise unknown_name("module", str(pattern), [path for _, path in every if path])
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} modules are called {fault.name or 'anything'!r}, and one is needed: "
            + ", ".join(found[:5])
            + ", ..." * (len(found) > 5)
        )
    return found[0]


def called(path: str, names: Names) -> tuple[str, str]:
    """The names of a module: its path, and that without the name of its model."""
    for base, _ in names.roots():
        if base and (path == base or path.startswith(f"{base}.")):
            return path, path[len(base) + 1 :]
    return path, path
