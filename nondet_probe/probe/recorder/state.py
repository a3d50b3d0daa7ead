"""Parameters, buffers and the optimizers' state: as a step found them, and as it left them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nondet_probe.probe.names import Names
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.pending import Pending
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.trace import Site, Words

__all__ = ["State", "parameters_of"]

_PLAIN = (bool, int, float, str, type(None))


class State:
    """What a step left behind, one record a tensor, at its end: parameters and buffers of all known
    models, the parameters of all known optimizers, and but for level step the optimizers' state.

    What a model begins a step with is recorded too, when its forward begins: what changed it
    meanwhile is then told from what the step did. At level step, which has to be cheap, only where
    the step before left no record.
    """

    def __init__(self, sink: Sink, names: Names) -> None:
        self._sink = sink
        self._names = names
        self._digester = Digester(sink.not_covered)
        self._optimizers: list[weakref.ref[Optimizer]] = []
        self._begun: set[int] = set()
        self._left_in: int | None = None
        sink.at_step_start(self._begun.clear)
        sink.at_step_end(self._left)

    def number_of(self, optimizer: Optimizer) -> int:
        """Its place among the optimizers seen, which it is one of from now on."""
        for number, known in enumerate(self._optimizers):
            if known() is optimizer:
                return number
        self._optimizers.append(weakref.ref(optimizer))
        return len(self._optimizers) - 1

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter) of all known models, and of optimizers what belongs to none; each
        once."""
        told: set[int] = set()
        for _, root in self._names.roots():
            for site, tensor in self._of_model(root, "state", None):
                if site.kind == "parameter" and id(tensor) not in told:
                    told.add(id(tensor))
                    yield site.name, tensor
        for number, known in enumerate(self._optimizers):
            optimizer = known()
            for parameter, _, name in (
                parameters_of(number, optimizer, self._names) if optimizer is not None else ()
            ):
                if id(parameter) not in told and self._sink.wants(name):
                    told.add(id(parameter))
                    yield name, parameter

    def found(self, root: nn.Module) -> None:
        """The forward of a model begins: the first one in a step shows what the model is."""
        if id(root) not in self._begun:
            self._begun.add(id(root))
            if self._left_in == self._sink.step - 1 and not self._sink.records("module"):
                return
            self._add(list(self._of_model(root, "setup", "as the step began")))

    def settings(self, number: int, optimizer: Optimizer) -> None:
        """What an optimizer is about to step with: each number of its settings is a record, so that
        a learning rate that differs is named; all the rest is one."""
        for group, settings in enumerate(optimizer.param_groups):
            rest = {}
            for key, value in settings.items():
                if key == "params" or not _is_plain(value):
                    continue
                if isinstance(value, float | int) and not isinstance(value, bool):
                    self._setting(f"optimizer {number}, group {group}: {key}", value, float(value))
                elif isinstance(value, Tensor):
                    self._setting(f"optimizer {number}, group {group}: {key}", value)
                else:
                    rest[key] = value
            self._setting(f"optimizer {number}, group {group}: settings", rest)

    def _setting(self, name: str, value: Any, figure: float | None = None) -> None:
        words = self._digester.words(value if isinstance(value, Tensor) else [value], name)
        self._sink.add(Site("optimizer", "optimizer", name), words, value=figure)

    def _left(self) -> None:
        told: set[int] = set()
        leaves: list[tuple[Site, Any]] = []
        for _, root in self._names.roots():
            for site, tensor in self._of_model(root, "state", None):
                told.add(id(tensor))
                leaves.append((site, tensor))
        for number, known in enumerate(self._optimizers):
            optimizer = known()
            if optimizer is not None:
                leaves += self._of_optimizer(number, optimizer, told)
        self._add(leaves)
        self._left_in = self._sink.step

    def _of_model(
        self, root: nn.Module, phase: str, note: str | None
    ) -> Iterator[tuple[Site, Tensor]]:
        for kind, several in (
            ("parameter", nn.Module.named_parameters),
            ("buffer", nn.Module.named_buffers),
        ):
            base = self._names.path(root) or ""
            for own, tensor in several(root):
                path, name = self._names.within(base, own)
                if self._sink.wants(name):
                    yield Site(phase, kind, name, path, note=note), tensor

    def _of_optimizer(
        self, number: int, optimizer: Optimizer, told: set[int]
    ) -> Iterator[tuple[Site, Any]]:
        whole = self._sink.records("module")
        for parameter, path, name in parameters_of(number, optimizer, self._names):
            if not self._sink.wants(name):
                continue
            if id(parameter) not in told:
                yield Site("state", "parameter", name, path), parameter
            # .get, since looking up would add an entry to the optimizer's defaultdict.
            state = optimizer.state.get(parameter, {}) if whole else {}
            for key, value in state.items():
                yield Site("state", "optimizer", f"{name}: {key}", path), value

    def _add(self, leaves: list[tuple[Site, Any]]) -> None:
        tensors = [value for _, value in leaves if isinstance(value, Tensor)]
        digests = iter(self._digester.each(tensors, "state"))
        for site, value in leaves:
            words: Words | Pending | None = (
                next(digests)
                if isinstance(value, Tensor)
                else self._digester.words([value], "state of an optimizer")
            )
            self._sink.add(site, words)


def parameters_of(
    number: int, optimizer: Optimizer, names: Names
) -> Iterator[tuple[Tensor, str | None, str]]:
    """(parameter, path of its module, its name) of all that an optimizer steps."""
    for group, settings in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(settings["params"]):
            known = names.parameter(parameter)
            if known is not None:
                yield parameter, *known
            else:
                yield parameter, None, f"optimizer {number}, group {group}: parameter {place}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (*_PLAIN, torch.Tensor))
