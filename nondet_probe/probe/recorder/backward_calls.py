"""The calls of `backward()` that the program makes on its own thread."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from nondet_probe.env.torch_private import current_autograd_node
from nondet_probe.probe.recorder.sink import Sink

__all__ = ["BackwardCalls"]


class BackwardCalls:
    """While entered, a function in the place of `torch.autograd.backward`, which `Tensor.backward`
    calls. before: called with what backward is called on, once the setup is over. after: called
    when the pass has ended, by whatever way. Not for the pass in a pass that checkpointing makes,
    nor for that of another thread."""

    def __init__(
        self, sink: Sink, before: Callable[[Any], None], after: Callable[[], None]
    ) -> None:
        self._sink = sink
        self._before = before
        self._after = after
        self._on = False
        self._original: Callable[..., Any] = torch.autograd.backward
        self._ours: Callable[..., Any] = torch.autograd.backward

    def __enter__(self) -> BackwardCalls:
        original = self._original = torch.autograd.backward

        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if not self._on or not self._sink.owns_thread() or current_autograd_node() is not None:
                return original(tensors, *args, **kwargs)
            # A model without modules has no forward that could begin the first step.
            self._sink.begin_step_if_setup()
            self._before(tensors)
            try:
                return original(tensors, *args, **kwargs)
            finally:
                self._after()

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
