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

__all__ = ["Optimizers", "with_closure_told"]


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
        if torch.compiler.is_compiling() or not self._sink.sees():
            return None
        number = self._state.number_of(optimizer)
        start = time.perf_counter()
        self._state.settings(number, optimizer)
        self._sink.seconds += time.perf_counter() - start
        told = with_closure_told(args, kwargs, lambda: self._evaluated(number, optimizer))
        if told is None:
            self._gradients(number, optimizer)
        return told

    def _evaluated(self, number: int, optimizer: Optimizer) -> None:
        if self._sink.sees():
            self._gradients(number, optimizer)

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


def with_closure_told(
    args: tuple[Any, ...], kwargs: dict[str, Any], told: Callable[[], None]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of an optimizer's step, args beginning with the optimizer, with the closure
    exchanged for one after whose first run `told` is called: gradients are there only then. None
    where there is no closure."""
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        return None
    ran = False

    def evaluated() -> Any:
        nonlocal ran
        loss = closure()
        if not ran:
            ran = True
            told()
        return loss

    if len(args) > 1:
        return (args[0], evaluated, *args[2:]), kwargs
    return args, {**kwargs, "closure": evaluated}


def _norm(gradients: list[Tensor]) -> float | Tensor | None:
    """Of all together: a figure to show. None where torch cannot say, as of some sparse ones."""
    try:
        with hidden_from_modes(), torch.no_grad():
            norm = torch.nn.utils.get_total_norm([one.detach() for one in gradients])
            return norm.item() if norm.is_cpu else norm
    except (RuntimeError, NotImplementedError, TypeError):
        return None
