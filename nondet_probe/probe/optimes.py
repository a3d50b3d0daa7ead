"""How long each op takes: by the clock on the CPU, by events on a GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nondet_probe.env.torch_private import TorchDispatchMode
from nondet_probe.probe.operands import tensors_in

__all__ = ["OpTimes"]


class OpTimes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """Adds up the time of every op call in the body by overload; `taken()` after it.

    An op of a GPU is timed between two events on its stream, which are read in `taken()`, so no
    call waits. What a mode costs itself lies outside of the times of the ops.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._process = os.getpid()
        self._calls: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, Any, Any]] = []

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """As for `RerunMode`: a compiled module stays compiled."""
        return True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if os.getpid() != self._process:
            return func(*args, **kwargs)
        name = str(func)
        if any(x.is_cuda for x in tensors_in((*args, *kwargs.values()))):
            before = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            after = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            before.record()
            output = func(*args, **kwargs)
            after.record()
            self._events.append((name, before, after))
        else:
            start = time.perf_counter()
            output = func(*args, **kwargs)
            took = time.perf_counter() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + took
        self._calls[name] = self._calls.get(name, 0) + 1
        return output

    def taken(self) -> dict[str, tuple[int, float]]:
        """Overload -> (calls, seconds)."""
        if self._events:
            torch.cuda.synchronize()
        for name, before, after in self._events:
            seconds = before.elapsed_time(after) / 1000
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._events.clear()
        return {name: (calls, self._seconds[name]) for name, calls in self._calls.items()}
