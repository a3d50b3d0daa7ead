"""The part of a recording, or of a training alone, that injects one fault at its moment."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from nondet_probe.bits.flip import BitChange
from nondet_probe.env.torch_private import call_keywords
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.probe.inject.apply import Applied, apply_among, candidates_of
from nondet_probe.probe.inject.rehearse import called, meant, rehearse
from nondet_probe.probe.inject.targets import Candidate, NotThereError, inside
from nondet_probe.probe.names import Names
from nondet_probe.probe.recorder.backward_calls import BackwardCalls
from nondet_probe.probe.recorder.optimizers import with_closure_told
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.fault import Fault, Injection

__all__ = ["Injector"]

# What lies in memory that may be the data set's: put back when the step is over.
_BORROWED = ("batch", "input")


class Injector:
    """Steps are those of the sink, recorded or not. It comes before the parts that record, so that
    they find what was changed. Only what the program's thread does counts.

    change: what was changed, once it was. refusal: the UsageError that was raised in the program
    where it could not be made.

    model, optimizer: as for `record`. Without a model, what cannot be is told where the fault's
    step begins, and in the first two steps as models show up; with one, `check_fault` told it.
    """

    def __init__(
        self,
        sink: Sink,
        fault: Fault,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        self.fault = fault
        self.change: BitChange | None = None
        self.refusal: UsageError | None = None
        self._sink = sink
        self._given = model is not None
        self._names = Names(model)
        self._optimizers: list[weakref.ref[Optimizer]] = []
        if optimizer is not None:
            self._learn(optimizer)
        self._process = os.getpid()
        self._hooks = ExitStack()
        self._borrowed: Applied | None = None
        # Of how many models the module that is meant was looked for, and its path.
        self._meant: tuple[int, str | None] | None = None
        self._waits: UsageError | None = None
        # Whether anything happened in the fault's step: it begins where the one before it ends.
        self._went_on = False
        sink.at_every_step(self._begins)
        sink.at_batch(self._drawn)

    def __enter__(self) -> Injector:
        with ExitStack() as hooks:
            hooks.callback(register_module_forward_pre_hook(self._before_module).remove)
            if self.fault.when == "after forward":
                hooks.callback(register_module_forward_hook(self._after_module).remove)
            hooks.enter_context(
                BackwardCalls(
                    self._sink,
                    lambda _: self._moment("before backward"),
                    lambda: self._moment("after backward"),
                )
            )
            hooks.callback(register_optimizer_step_pre_hook(self._before_optimizer).remove)
            hooks.callback(register_optimizer_step_post_hook(self._after_optimizer).remove)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.close()
        self._return()

    def missed(self) -> str | None:
        """At the run's end: why nothing was changed; None where it was, and in a forked child."""
        if os.getpid() != self._process:
            return None
        if self.change is not None and (self._went_on or self._sink.step > self.fault.step):
            return None
        if self.refusal is not None:
            return str(self.refusal)
        done = max(self._sink.step, 0)
        if self._sink.step == self.fault.step and self._waits is not None:
            why = str(self._waits)
        else:
            why = f"the run ended after {done} step{'s' * (done != 1)}, which count from 0"
        return f"nothing was injected ({self.fault}): {why}"

    def _begins(self) -> None:
        if not self._is_open():
            self._return()
        elif self._sink.step > self.fault.step:
            self._refuse(self._waits or self._never())
        elif self._is_due():
            if self._all_are_known():
                self._waits = self._refused_already()
            self._moment("before data")

    def _refused_already(self) -> UsageError | None:
        """Models and optimizers have shown up: what cannot be is told before the step."""
        try:
            rehearse(self.fault, self._names, self._known_optimizers())
        except NotThereError as error:
            return error
        except UsageError as error:
            self._refuse(error)
        return None

    def _never(self) -> UsageError:
        if self.fault.site in ("input", "output"):
            try:
                path = meant(self.fault, self._names)
            except UsageError as error:
                return error
            return UsageError(
                f"module {path} was not called in that step, or for evaluation only (in eval mode, "
                "without gradients)"
            )
        hint = ""
        if self.fault.when.endswith("data"):
            hint = ": only batches of a torch.utils.data.DataLoader are seen, so take site 'input'"
        return UsageError(f"that step had no moment {self.fault.when!r}{hint}")

    def _all_are_known(self) -> bool:
        """Whether all models have been called: with several optimizers, each of which steps another
        one, the first one's step ends step 0, so that some are called in step 1 first."""
        return self._given or self.fault.step > 1

    def _is_open(self) -> bool:
        """Whether nothing has come of it yet, in the process that it is for."""
        undecided = self.change is None and self.refusal is None
        return undecided and os.getpid() == self._process

    def _is_due(self) -> bool:
        return self._sink.step == self.fault.step and self._is_open()

    def _moment(self, when: str) -> None:
        self._went_on |= self._sink.step == self.fault.step and when != "before data"
        waits_for_more = self.fault.site in ("input", "output", "batch")
        if when != self.fault.when or waits_for_more:
            return
        if self._is_due() and self._sink.owns_thread():
            optimizers = self._known_optimizers()
            self._inject(candidates_of(self.fault.site, self._names, optimizers))

    def _inject(self, candidates: list[Candidate]) -> None:
        try:
            applied = apply_among(self.fault, candidates)
        except NotThereError as error:
            self._waits = error
        except UnknownNameError as error:
            # Another loader, or at the beginning another model, may have what is meant.
            if self.fault.site != "batch" and self._all_are_known():
                self._refuse(error)
            self._waits = error
        except UsageError as error:
            self._refuse(error)
        else:
            self.change = applied.change
            if self.fault.site in _BORROWED:
                self._borrowed = applied
            self._sink.injected(Injection(self.fault, applied.change))

    def _refuse(self, why: UsageError) -> NoReturn:
        self.refusal = UsageError(f"nothing was injected ({self.fault}): {why}")
        raise self.refusal from why

    def _return(self) -> None:
        borrowed, self._borrowed = self._borrowed, None
        if borrowed is not None:
            # What the program has overwritten since is its own again.
            with contextlib.suppress(UsageError):
                borrowed.undo()

    def _drawn(self, loader: str, batch: Any) -> None:
        self._moment("after data")
        if self.fault.site == "batch" and self._is_due():
            first = loader == "loader 0"
            if first or self.fault.name is not None:
                self._inject(inside(batch, loader, *([""] if first else [])))

    def _before_module(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling() or not self._is_ours():
            return
        self._sink.begin_step_if_setup()
        path = self._names.path(module)
        if path is None:
            path = self._names.of_root(module)
        if path is None or not self._is_due() or _evaluates(module):
            return
        if self._names.is_root(module):
            self._moment("before forward")
        if self.fault.site == "input" and self._is_meant(path):
            keywords = call_keywords(sys._getframe()) or {}
            given = {**{str(place): one for place, one in enumerate(args)}, **keywords}
            self._inject(inside(given, *called(path, self._names)))

    def _after_module(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling() or not self._is_ours() or not self._is_due():
            return
        path = self._names.path(module)
        if path is None or _evaluates(module):
            return
        if self.fault.site == "output" and self._is_meant(path):
            self._inject(inside(output, *called(path, self._names)))
        if self._names.is_root(module):
            self._moment("after forward")

    def _before_optimizer(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if torch.compiler.is_compiling() or not self._is_ours():
            return None
        self._learn(optimizer)
        # With a closure the first step may begin only within this call.
        if self.fault.when != "before optimizer" or not self._is_open():
            return None
        told = with_closure_told(args, kwargs, lambda: self._moment("before optimizer"))
        if told is None:
            self._moment("before optimizer")
        return told

    def _after_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling() and self._is_ours():
            self._moment("after optimizer")

    def _is_meant(self, path: str) -> bool:
        count = len(self._names.roots())
        if self._meant is None or self._meant[0] != count:
            try:
                self._meant, self._waits = (count, meant(self.fault, self._names)), None
            except UnknownNameError as error:
                self._meant, self._waits = (count, None), error
            except UsageError as error:
                self._refuse(error)
        return self._meant[1] == path

    def _is_ours(self) -> bool:
        return self._sink.owns_thread() and os.getpid() == self._process

    def _learn(self, optimizer: Optimizer) -> None:
        if all(known() is not optimizer for known in self._optimizers):
            self._optimizers.append(weakref.ref(optimizer))

    def _known_optimizers(self) -> list[Optimizer]:
        return [one for one in (known() for known in self._optimizers) if one is not None]


def _evaluates(module: nn.Module) -> bool:
    return not module.training and not torch.is_grad_enabled()
