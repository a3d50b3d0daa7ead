"""Change the element that a fault means, and change it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nondet_probe.bits.flip import BitChange, flip_bit, step_ulp
from nondet_probe.env.generator_words import generator_words, set_generator_words
from nondet_probe.env.torch_private import hidden_from_modes
from nondet_probe.errors import UsageError
from nondet_probe.probe.inject.targets import (
    Candidate,
    buffers,
    choose,
    generators,
    gradients,
    inside,
    of_optimizers,
    parameters,
)
from nondet_probe.probe.names import Names
from nondet_probe.records.fault import Fault

__all__ = ["Applied", "apply", "apply_among", "candidates_of"]


@dataclass(frozen=True)
class Applied:
    """A change that was made. target: what it was made in."""

    change: BitChange
    target: Candidate

    def undo(self) -> None:
        """Put the element's bits back. UsageError where others stand there by now."""
        with _bits_of(self.target) as tensor:
            self.change.undo(tensor)


def apply(
    fault: Fault,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    batch: Any = None,
) -> Applied:
    """Change the element now, whatever the fault's step and moment.

    model, optimizer, batch: as far as the site needs them; tensors in a batch are called by their
    place in it, "0" or "mask", as those of the first loader are. No mode sees an op doing it, and
    autograd does not notice. Raises UsageError where there is no such tensor, element or bit; then
    nothing was changed.
    """
    if fault.site in ("input", "output"):
        raise UsageError(
            f"site {fault.site!r} is there while a module runs: use inject(), which waits for it"
        )
    if fault.site == "batch":
        return apply_among(fault, inside(batch, "loader 0", ""))
    optimizers = [] if optimizer is None else [optimizer]
    return apply_among(fault, candidates_of(fault.site, Names(model), optimizers))


def candidates_of(site: str, names: Names, optimizers: Sequence[Optimizer]) -> list[Candidate]:
    """The tensors of a site that are there between the calls of modules."""
    if site == "rng":
        return generators()
    if site == "buffer":
        return buffers(names)
    if site == "gradient":
        return gradients(names, optimizers)
    if site == "optimizer":
        return of_optimizers(names, optimizers)
    return parameters(names, optimizers, site)


def apply_among(fault: Fault, candidates: Sequence[Candidate]) -> Applied:
    """Change the element of one of `candidates`. Raises as `choose`."""
    with hidden_from_modes(), torch.no_grad():
        target, index, direction = choose(fault, candidates)
        try:
            with _bits_of(target) as tensor:
                return Applied(_change(fault, tensor, index, direction, target.name), target)
        except (TypeError, UsageError) as error:
            raise UsageError(f"{target.name}: {error}") from error


def _change(fault: Fault, tensor: Tensor, index: int, direction: int, name: str) -> BitChange:
    if fault.bit is not None:
        return flip_bit(tensor, index, fault.bit, name)
    zero = fault.change == "paper_stem" and not tensor.flatten()[index]
    change = step_ulp(tensor, index, direction, name)
    if zero and not tensor.flatten()[index]:
        # The original steps with nextafter, for which both zeros are one number.
        again = step_ulp(tensor, index, direction, name)
        change = dataclasses.replace(again, before=change.before)
    return change


@contextmanager
def _bits_of(target: Candidate) -> Iterator[Tensor]:
    """The tensor to write into; for a generator its words as they are now, stored afterwards."""
    if target.generator is not None:
        words = generator_words(target.generator)
        yield torch.from_numpy(words)
        set_generator_words(target.generator, np.asarray(words))
        return
    assert target.tensor is not None, "one that is there was chosen"
    # .data has a count of changes of its own, so that a backward pass goes on with the new bits.
    yield target.tensor.data
