"""`inject`: a fault in a training that is not recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType

import torch
from torch import nn
from torch.optim import Optimizer

from nondet_probe.bits import DIGEST_FORMAT, BitChange
from nondet_probe.errors import UsageError
from nondet_probe.probe.inject.injector import Injector
from nondet_probe.probe.inject.rehearse import check_fault
from nondet_probe.probe.recorder.parts import parts_of
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.fault import Fault
from nondet_probe.records.trace import Site, TraceMeta, Words

__all__ = ["Injecting", "inject"]


class Injecting:
    """What `inject` gives: a context manager, to be entered once. change: what was changed, None
    as long as nothing was."""

    def __init__(self, fault: Fault, model: nn.Module | None, optimizer: Optimizer | None) -> None:
        self._sink = Sink(_Nowhere(), schedule=_never)
        self._injector = Injector(self._sink, fault, model, optimizer)
        self._parts = parts_of(self._sink, model, optimizer, injector=self._injector)
        self._check = partial(check_fault, fault, model, optimizer)
        self._entered: ExitStack | None = None

    @property
    def change(self) -> BitChange | None:
        return self._injector.change

    def __enter__(self) -> Injecting:
        if self._entered is not None:
            raise UsageError("this injection was entered before: call inject() again")
        self._check()
        with ExitStack() as parts:
            parts.callback(self._sink.close)
            for part in self._parts.every:
                parts.enter_context(part)
            self._entered = parts.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._entered is not None, "it was entered"
        missed = self._injector.missed()
        self._entered.close()
        if kind is None and missed is not None:
            raise UsageError(missed)

    def step(self) -> None:
        """The step that runs is over. For training without an optimizer of `torch.optim`: what such
        an optimizer stepped is over already, and then this call does nothing."""
        if self._parts.optimizers.ended:
            self._parts.optimizers.ended = False
        else:
            self._sink.end_step()


def inject(
    fault: Fault, *, model: nn.Module | None = None, optimizer: Optimizer | None = None
) -> Injecting:
    """Change one element of the training in a `with` block, at the fault's step and moment.

        with nondet_probe.inject(fault, model=model):
            train()

    Steps, phases and names are those of `record`. With a model, what cannot be is told before the
    training begins; without one where the fault's step begins. What the loss becomes of it, a NaN
    too, is the training's own.

    Raises UsageError, in the training or at the end of the block, where nothing could be injected:
    no such tensor, element or bit, or the run was over before that step.
    """
    if not isinstance(fault, Fault):
        raise UsageError(
            f"fault: a nondet_probe.Fault is needed, not {type(fault).__name__}; load_fault reads "
            "a file"
        )
    return Injecting(fault, model, optimizer)


def _never(step: int) -> torch.profiler.ProfilerAction:
    return torch.profiler.ProfilerAction.NONE


class _Nowhere:
    """A trace of nothing: no step of the sink is recorded."""

    def __init__(self) -> None:
        self.meta = TraceMeta("step", False, None, "", {}, DIGEST_FORMAT)

    def site(self, site: Site) -> int:
        return 0

    def add(
        self,
        step: int,
        site: int,
        inputs: Words | None,
        outputs: Words | None,
        value: float | None = None,
    ) -> int:
        return 0

    def sketch(
        self, step: int, form: str, shapes: Mapping[str, Sequence[int]], buckets: bytes
    ) -> None:
        """There is no place for it."""

    def flush(self) -> None:
        """There is nothing."""

    def update(self) -> None:
        """There is nothing."""
