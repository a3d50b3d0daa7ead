"""The parts of a recording, in the order in which they are entered."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from nondet_probe.probe.inject.injector import Injector
from nondet_probe.probe.names import Names
from nondet_probe.probe.recorder.generators import Generators
from nondet_probe.probe.recorder.inspection import Inspector
from nondet_probe.probe.recorder.loaders import Loaders
from nondet_probe.probe.recorder.losses import Losses
from nondet_probe.probe.recorder.modules import Modules
from nondet_probe.probe.recorder.ops import Ops
from nondet_probe.probe.recorder.optimizers import Optimizers
from nondet_probe.probe.recorder.sink import Part, Sink
from nondet_probe.probe.recorder.sketches import Sketches
from nondet_probe.probe.recorder.state import State
from nondet_probe.probe.recorder.switches import Switches
from nondet_probe.probe.recorder.threads import Threads

__all__ = ["Parts", "parts_of"]


@dataclass
class Parts:
    """every: all of them, those that a recording speaks to as well."""

    every: list[Part]
    generators: Generators
    losses: Losses
    optimizers: Optimizers


def parts_of(
    sink: Sink,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    inspection: Inspector | None = None,
    injector: Injector | None = None,
    *,
    sketch: bool = False,
) -> Parts:
    """What the sink's level asks for. model, optimizer: as `record` takes them; inspection: is
    told of every op call; injector: comes first, so that all others find its change; sketch:
    whether the parameters are sketched.

    What is noted at a step's start comes in this order; the dispatch mode is entered last, so that
    it does not see the others being entered.
    """
    names = Names(model)
    switches, generators, loaders = Switches(sink), Generators(sink), Loaders(sink)
    state = State(sink, names)
    if optimizer is not None:
        state.number_of(optimizer)
    losses, optimizers = Losses(sink), Optimizers(sink, names, state)
    every: list[Part] = [
        switches,
        generators,
        loaders,
        Threads(sink),
        Modules(sink, names, state),
        losses,
        optimizers,
    ]
    if sketch:
        every.append(Sketches(sink, state))
    if sink.records("op"):
        every.append(Ops(sink, names, inspection))
    if injector is not None:
        every.insert(0, injector)
    return Parts(every, generators, losses, optimizers)
