"""The loss of a step: what the program calls `backward()` on."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.torch_private import hidden_from_modes
from nondet_probe.probe.recorder.backward_calls import BackwardCalls
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.trace import Site

__all__ = ["Losses"]


class Losses:
    """The part of a recording that sees losses, where `backward()` is called."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digester = Digester(sink.not_covered)
        self._seen = 0
        self._calls = BackwardCalls(sink, self._begins, self._ended)
        sink.at_step_start(self._start)

    def __enter__(self) -> Losses:
        self._calls.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.__exit__(kind, error, traceback)

    def _begins(self, tensors: Any) -> None:
        if self._sink.active:
            for tensor in [tensors] if isinstance(tensors, Tensor) else list(tensors):
                self.add(tensor)
        self._sink.backward_runs = True

    def _ended(self) -> None:
        self._sink.backward_runs = False

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


def _figure(loss: Any) -> float | Tensor | None:
    if not isinstance(loss, Tensor):
        return float(loss)
    if loss.numel() != 1 or loss.is_complex() or loss.is_meta:
        return None
    with hidden_from_modes(), torch.no_grad():
        return float(loss.detach().item()) if loss.is_cpu else loss.detach().double().clone()
