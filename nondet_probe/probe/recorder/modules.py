"""The forward of every module, and the gradient that comes back to it.

By global forward hooks, which see modules that the program makes later too, and tensor hooks on
what a module gave. Never by backward hooks on modules: those change gradient bits.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from nondet_probe.env.torch_private import call_keywords, current_autograd_node
from nondet_probe.probe.names import Names
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.pending import Pending
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.recorder.state import State
from nondet_probe.records.trace import Site, Words

__all__ = ["Modules"]

_Digested = Words | Pending | None


class Modules:
    """The part of a recording that sees modules. At level step it only notices that a forward of a
    model begins, for the step and for the state that it finds."""

    def __init__(self, sink: Sink, names: Names, state: State) -> None:
        self._sink = sink
        self._names = names
        self._state = state
        self._digester = Digester(sink.not_covered)
        # Of the forwards that run: an exception leaves some behind.
        self._begun: list[tuple[nn.Module, _Digested]] = []
        self._on_tensors: list[RemovableHandle] = []
        self._hooks = ExitStack()
        self._whole = sink.records("module")
        sink.at_step_end(self._on_tensors.clear)

    def __enter__(self) -> Modules:
        with ExitStack() as hooks:
            hooks.enter_context(_quiet())
            hooks.callback(register_module_forward_pre_hook(self._before).remove)
            if self._whole:
                hooks.callback(register_module_forward_hook(self._after).remove)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.close()
        for handle in self._on_tensors:
            handle.remove()
        self._on_tensors.clear()
        self._begun.clear()

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            return
        sink = self._sink
        sink.begin_step_if_setup()
        if not sink.active or not sink.sees():
            return
        start = time.perf_counter()
        path = self._names.path(module)
        if path is None:
            path = self._names.of_root(module)
        if self._names.is_root(module):
            self._state.found(module)
        if self._whole and path is not None and sink.wants(path):
            self._begun.append((module, self._given(path, args, sys._getframe())))
        sink.seconds += time.perf_counter() - start

    def _given(self, path: str, args: tuple[Any, ...], hook: FrameType) -> _Digested:
        keywords = call_keywords(hook)
        if keywords is None:
            self._sink.not_covered("keyword arguments of modules, which this torch does not show")
        given = [*args, keywords] if keywords else list(args)
        return self._digester.words(given, _named(path))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling() or not self._begun:
            return
        begun = next((one for one in reversed(self._begun) if one[0] is module), None)
        if begun is None or not self._sink.sees():
            return
        start = time.perf_counter()
        while self._begun.pop() is not begun:
            pass
        path = self._names.path(module)
        if path is not None:
            self._record(module, path, begun[1], output)
        self._sink.seconds += time.perf_counter() - start

    def _record(self, module: nn.Module, path: str, inputs: _Digested, output: Any) -> None:
        again = current_autograd_node() is not None
        site = Site(
            "backward" if again else "forward",
            "module",
            type(module).__name__,
            path,
            note="recomputed" if again else None,
        )
        self._sink.add(site, self._digester.words(output, _named(path)), inputs)
        for place, tensor in enumerate(_tensors(output)):
            if tensor.requires_grad:
                note = f"gradient of output {place}" if place else "gradient of the output"
                came = site._replace(phase="backward", note=note)
                hook = tensor.register_hook(partial(self._came_back, came))  # type: ignore[no-untyped-call]
                self._on_tensors.append(hook)

    def _came_back(self, site: Site, gradient: Tensor) -> None:
        if torch.compiler.is_compiling() or not self._sink.sees():
            return
        start = time.perf_counter()
        self._sink.add(site, self._digester.words(gradient, _named(site.module or "")))
        self._sink.seconds += time.perf_counter() - start


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of global hooks when a compiled module is called. Ours do nothing inside of it,
    and a program that is recorded must print what it prints without."""
    warnings.filterwarnings(
        "ignore", r"Using `torch\.compile\(module\)` when there are global hooks"
    )
    ours = warnings.filters[0]
    try:
        yield
    finally:
        # Not catch_warnings, which would also undo what the program did to the filters meanwhile.
        if ours in warnings.filters:
            warnings.filters.remove(ours)  # type: ignore[attr-defined]


def _named(path: str) -> str:
    return f"module {path}" if path else "the model"


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
