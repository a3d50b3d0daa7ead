"""The loss of a step: what the program calls `backward()` on."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.torch_private import current_autograd_node, hidden_from_modes
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.trace import Site

__all__ = ["Losses"]


class Losses:
    """The part of a recording that sees losses, by a function in the place of
    `torch.autograd.backward`, which `Tensor.backward` calls."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digester = Digester(sink.not_covered)
        self._seen = 0
        self._on = False
        self._original: Callable[..., Any] = torch.autograd.backward
        self._ours: Callable[..., Any] = torch.autograd.backward
        sink.at_step_start(self._start)

    def __enter__(self) -> Losses:
        original = self._original = torch.autograd.backward

        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            # Not the pass in a pass that checkpointing makes, nor that of another thread.
            if not self._on or not self._sink.owns_thread() or _in_backward():
                return original(tensors, *args, **kwargs)
            # A model without modules has no forward that could begin the first step.
            self._sink.begin_step_if_setup()
            if self._sink.active:
                for tensor in [tensors] if isinstance(tensors, Tensor) else list(tensors):
                    self.add(tensor)
            self._sink.backward_runs = True
            try:
                return original(tensors, *args, **kwargs)
            finally:
                self._sink.backward_runs = False

        self._ours = torch.autograd.backward = backward
        self._on = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._on = False
        # Whoever put a function around ours since keeps it, and it does nothing any more.
        if torch.autograd.backward is self._ours:
            torch.autograd.backward = self._original

    def add(self, loss: Any) -> None:
        """Record a loss of the step that runs: a tensor or a number."""
        if not self._sink.active:
            return
        start = time.perf_counter()
        self._seen += 1
        name = "loss" if self._seen == 1 else f"loss {self._seen}"
        words = self._digester.words([loss] if not isinstance(loss, Tensor) else loss, "the loss")
        self._sink.add(Site("forward", "loss", name), words, value=_figure(loss))
        self._sink.seconds += time.perf_counter() - start

    def _start(self) -> None:
        self._seen = 0


def _in_backward() -> bool:
    return current_autograd_node() is not None


def _figure(loss: Any) -> float | Tensor | None:
    if not isinstance(loss, Tensor):
        return float(loss)
    if loss.numel() != 1 or loss.is_complex() or loss.is_meta:
        return None
    with hidden_from_modes(), torch.no_grad():
        return float(loss.detach().item()) if loss.is_cpu else loss.detach().double().clone()
