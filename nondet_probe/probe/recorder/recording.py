"""`record`: the digests of a training run, in order, into a folder."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from nondet_probe.bits import DIGEST_FORMAT
from nondet_probe.env.world import snapshot
from nondet_probe.errors import DifferenceError, UsageError, unknown_name
from nondet_probe.probe.inject.injector import Injector
from nondet_probe.probe.inject.rehearse import check_fault
from nondet_probe.probe.recorder.along import Along
from nondet_probe.probe.recorder.costs import expected_cost
from nondet_probe.probe.recorder.inspection import Inspector
from nondet_probe.probe.recorder.live import (
    KEPT,
    Live,
    Outcome,
    compared,
    open_reference,
    sentence,
)
from nondet_probe.probe.recorder.parts import parts_of
from nondet_probe.probe.recorder.sink import Schedule, Sink
from nondet_probe.records.difference import TraceDifference
from nondet_probe.records.fault import Fault, Injection
from nondet_probe.records.trace import LEVELS, TraceCost, TraceMeta
from nondet_probe.records.trace_reader import Trace, open_trace
from nondet_probe.records.trace_writer import TraceWriter

__all__ = ["Recording", "check_choices", "record"]


class Recording:
    """What `record` gives: a context manager, to be entered once.

    out: the folder of the trace. sink, meta: of the recording, once it is entered. against: the
    trace to compare with, as `open_reference` gives it; outcome: of that. stopping: raises, where
    the two differ; None for DifferenceError. difference: between both, once one was found or the
    block was left; not with `stopping`.
    """

    sink: Sink
    meta: TraceMeta
    difference: TraceDifference | None = None

    def __init__(
        self,
        out: Path,
        *,
        level: str,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        loader: Any = None,
        schedule: Schedule | None = None,
        names: str | None = None,
        outputs_only: bool = False,
        command: Sequence[str] | None = None,
        steps: tuple[int, int] | None = None,
        inspection: Inspector | None = None,
        against: Trace | None = None,
        stopping: Callable[[], None] | None = None,
        sketch: bool = False,
        inject: Fault | None = None,
    ) -> None:
        _check(level, model, optimizer, schedule, names)
        self.out = out
        self._level = level
        self._model = model
        self._optimizer = optimizer
        self._loader = loader
        self._schedule = schedule
        self._pattern = names
        self._inputs = not outputs_only
        self._command = list(command) if command is not None else None
        self._steps = steps
        self._inspection = inspection
        self._fault = inject
        self._injector: Injector | None = None
        self._against = against
        self._stopping = stopping
        self._sketch = sketch
        self._live: Live | None = None
        self._entered = False
        self._inside = False
        self._entered_parts = ExitStack()

    def __enter__(self) -> Recording:
        if self._entered:
            raise UsageError(
                "this recording was entered before, and a trace is written once: call record() "
                "again, with another folder"
            )
        if self._fault is not None:
            check_fault(self._fault, self._model, self._optimizer)
        writer = TraceWriter(self.out, self._meta())
        self._entered = True
        self.meta = writer.meta
        with ExitStack() as parts:
            parts.callback(writer.close)
            self.sink = self._sink(writer)
            parts.callback(self.sink.close)
            if self._loader is not None and not isinstance(self._loader, DataLoader):
                self.sink.caveat(
                    f"batches of {type(self._loader).__name__} are not seen, only those of "
                    "torch.utils.data.DataLoader"
                )
            if self._fault is not None:
                given = self._model, self._optimizer
                self._injector = Injector(self.sink, self._fault, *given)
            self._parts = parts_of(
                self.sink,
                self._model,
                self._optimizer,
                self._live or self._inspection,
                self._injector,
                sketch=self._sketch,
            )
            for part in self._parts.every:
                parts.enter_context(part)
            self._entered_parts = parts.pop_all()
        self._inside = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside = False
        if self.sink.failure is not None:
            self.meta.status, self.meta.failure = "failed", str(self.sink.failure)
        elif self.meta.status == "stopped":
            pass
        elif kind is None or issubclass(kind, SystemExit):
            self.meta.status = "complete"
        else:
            self.meta.status = "failed"
            self.meta.failure = f"{kind.__name__}: {error}".removesuffix(": ")
        missed = self.missed()
        if missed is not None and self.meta.status == "complete":
            self.meta.status, self.meta.failure = "failed", missed
        self._entered_parts.close()
        if kind is None and self.sink.failure is not None:
            raise self.sink.failure
        if kind is None and missed is not None:
            raise UsageError(missed)
        if self._live is not None and self._stopping is None and self.sink.failure is None:
            self.difference = self.difference or self._compared()
            if kind is None and not self.difference.equal:
                raise self._error()

    @property
    def outcome(self) -> Outcome:
        """Of the comparison, as far as it has come."""
        return self._live.outcome if self._live is not None else Outcome()

    def missed(self) -> str | None:
        """Why the fault that was asked for was not injected; None where it was, where none was, and
        where the run was stopped for a difference."""
        stopped = self.meta.status == "stopped"
        return None if self._injector is None or stopped else self._injector.missed()

    def refused(self, error: BaseException) -> bool:
        """Whether the program was ended by this error because the fault cannot be injected."""
        return self._injector is not None and error is self._injector.refusal

    def step(self, loss: Any = None) -> None:
        """The step that runs is over. For training without an optimizer of `torch.optim`: what such
        an optimizer stepped is over already, and then this call does nothing.

        loss: a tensor or a number. What `backward()` is called on is recorded without it.
        """
        if not self._inside:
            raise UsageError("step() is for inside of the `with` block of the recording")
        if self._parts.optimizers.ended:
            self._parts.optimizers.ended = False
            return
        if loss is not None:
            self._parts.losses.add(loss)
        self.sink.end_step()

    def _sink(self, writer: TraceWriter) -> Sink:
        """That of the recording; with a trace to compare with, what is written is looked at."""
        if self._against is None:
            return Sink(writer, schedule=self._schedule)
        along = Along(self._against, writer)
        sink = Sink(along, schedule=self._schedule)
        self._live = Live(along, sink, self.out / KEPT, self._stopping or self._differs)
        return sink

    def _differs(self) -> None:
        if self.difference is None:
            self._parts.generators.look()
            self.difference = self._compared()
        raise self._error()

    def _compared(self) -> TraceDifference:
        assert self._against is not None, "asked before"
        # The file may not say yet from which generators was drawn.
        run = replace(open_trace(self.out, self.meta.rank), meta=self.meta)
        return compared(self._against, run, self.outcome)

    def _error(self) -> DifferenceError:
        assert self.difference is not None, "asked before"
        return DifferenceError(sentence(self.difference), self.difference)

    def _meta(self) -> TraceMeta:
        rank, world = _group()
        return TraceMeta(
            level=self._level,
            inputs=self._inputs,
            command=self._command,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            environment=snapshot(),
            digest_format=DIGEST_FORMAT,
            names=self._pattern,
            steps=self._steps,
            rank=rank,
            world=world,
            cost=TraceCost(expected_cost(self._level, self._inputs)),
            injected=None if self._fault is None else Injection(self._fault),
        )


def record(
    out: str | Path,
    *,
    level: str = "module",
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    loader: Any = None,
    schedule: Schedule | None = None,
    names: str | None = None,
    outputs_only: bool = False,
    inject: Fault | None = None,
    against: str | Path | None = None,
    sketch: bool = False,
) -> Recording:
    """Record the training in a `with` block: digests, in order, into the new folder `out`.

        with nondet_probe.record("runA", level="module", model=model) as rec:
            for batch in loader:
                train_step(batch)

    level: "step" (batches, generators, switches, loss, gradient norm, parameters and buffers),
    "module" (also what each module was given and gave, the gradients, the optimizer's state) or
    "op" (also every op). model: names modules by their path in it; without it they begin with the
    class of the outermost module. optimizer: whose steps are the steps; without it the first one
    that steps. loader: where the batches come from; those of every `DataLoader` are recorded, and
    for anything else the trace says that its batches are not seen. schedule: of
    `torch.profiler.schedule`; steps that it does not record cost nothing. names: a regular
    expression; only modules and parameters whose path it finds something in are recorded.
    outputs_only: at level op, do not digest the tensors that ops are given. against: the folder of
    a trace, recorded at the same level, that this one is compared with as it is made: at the first
    difference DifferenceError is raised, and what there is to know of it is its `difference`.
    sketch: also keep a sketch of all parameters a step, 32 KB each, from which `nondet-probe drift`
    tells the distance between runs.
    inject: a fault that is injected meanwhile, as `nondet_probe.inject` does.

    Raises UsageError for arguments that cannot be, for a folder that is there already, and where
    the fault could not be injected. A trace that cannot be written any more (a full disk) ends the
    recording, not the training; leaving the block then raises RecordError.
    """
    _check(level, model, optimizer, schedule, names)
    reference = None
    if against is not None:
        rank, world = _group()
        reference = open_reference(
            Path(against), level=level, inputs=not outputs_only, rank=rank, world=world
        )
    return Recording(
        Path(out),
        level=level,
        model=model,
        optimizer=optimizer,
        loader=loader,
        schedule=schedule,
        names=names,
        outputs_only=outputs_only,
        inject=inject,
        against=reference,
        sketch=sketch,
    )


def check_choices(*, level: Any, names: Any) -> None:
    """UsageError for a level that there is none of, or names that are no regular expression."""
    if level not in LEVELS:
        raise unknown_name("level", str(level), LEVELS)
    if names is not None:
        try:
            re.compile(names)
        except (re.error, TypeError) as error:
            raise UsageError(f"names={names!r} is no regular expression: {error}") from None


def _check(level: Any, model: Any, optimizer: Any, schedule: Any, names: Any) -> None:
    check_choices(level=level, names=names)
    if model is not None and not isinstance(model, nn.Module):
        raise UsageError(f"model: a torch.nn.Module is needed, not {type(model).__name__}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise UsageError(
            f"optimizer: a torch.optim.Optimizer is needed, not {type(optimizer).__name__}; "
            "without one leave it out and call step() of the recording"
        )
    if schedule is not None and not callable(schedule):
        raise UsageError(
            f"schedule: what torch.profiler.schedule(...) gives, not {type(schedule).__name__}"
        )


def _group() -> tuple[int, int]:
    """(rank, world) of this process."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1
