"""Optimizers: the settings and gradients that each is about to use, and the steps they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from nondet_probe.env.torch_private import hidden_from_modes
from nondet_probe.probe.names import Names
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.recorder.state import State, parameters_of
from nondet_probe.records.trace import Site

__all__ = ["Optimizers"]


class Optimizers:
    """The part of a recording that sees optimizers, by PyTorch's global hooks. The first one seen
    ends the steps. ended: whether it has ended one since `ended` was set to False."""

    def __init__(self, sink: Sink, names: Names, state: State) -> None:
        self._sink = sink
        self._names = names
        self._state = state
        self._digester = Digester(sink.not_covered)
        self._hooks = ExitStack()
        self.ended = False

    def __enter__(self) -> Optimizers:
        with ExitStack() as hooks:
            hooks.callback(register_optimizer_step_pre_hook(self._before).remove)
            hooks.callback(register_optimizer_step_post_hook(self._after).remove)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.close()

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """args: begin with the optimizer itself. With a closure, gradients are there after it ran
        for the first time, so it is exchanged for one that tells when."""
        if torch.compiler.is_compiling() or not self._sink.sees():
            return None
        number = self._state.number_of(optimizer)
        start = time.perf_counter()
        self._state.settings(number, optimizer)
        self._sink.seconds += time.perf_counter() - start
        if len(args) > 1 and args[1] is not None:
            return (args[0], self._telling(number, optimizer, args[1]), *args[2:]), kwargs
        if kwargs.get("closure") is not None:
            closure = self._telling(number, optimizer, kwargs["closure"])
            return args, {**kwargs, "closure": closure}
        self._gradients(number, optimizer)
        return None

    def _telling(
        self, number: int, optimizer: Optimizer, closure: Callable[[], Any]
    ) -> Callable[[], Any]:
        told = False

        def evaluated() -> Any:
            nonlocal told
            loss = closure()
            if not told and self._sink.sees():
                told = True
                self._gradients(number, optimizer)
            return loss

        return evaluated

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or not self._sink.owns_thread():
            return
        if self._state.number_of(optimizer) == 0:
            self._sink.end_step()
            self.ended = True

    def _gradients(self, number: int, optimizer: Optimizer) -> None:
        start = time.perf_counter()
        gradients: list[Tensor] = []
        sites: list[Site] = []
        for parameter, path, name in parameters_of(number, optimizer, self._names):
            gradient = parameter.grad
            if gradient is not None and self._sink.wants(name):
                gradients.append(gradient)
                sites.append(Site("backward", "gradient", name, path))
        digests = self._digester.each(gradients, "gradient")
        if self._sink.records("module"):
            for site, words in zip(sites, digests, strict=True):
                self._sink.add(site, words)
        if gradients:
            which = f"gradient norm, optimizer {number}" if number else "gradient norm"
            self._sink.add(
                Site("backward", "gradient", which),
                self._digester.joined(digests),
                value=_norm(gradients),
            )
        self._sink.seconds += time.perf_counter() - start


def _norm(gradients: list[Tensor]) -> float | Tensor | None:
    """Of all together: a figure to show. None where torch cannot say, as of some sparse ones."""
    try:
        with hidden_from_modes(), torch.no_grad():
            norm = torch.nn.utils.get_total_norm([one.detach() for one in gradients])
            return norm.item() if norm.is_cpu else norm
    except (RuntimeError, NotImplementedError, TypeError):
        return None
