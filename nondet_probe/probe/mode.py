"""The dispatch mode that executes every op again and compares the results bit by bit.

The original execution runs exactly once, on the real operands, and its results are what training
goes on with. Everything else happens on copies, and the random streams are put back afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from nondet_probe.env.torch_private import TorchDispatchMode, hidden_from_modes
from nondet_probe.probe.census import Census
from nondet_probe.probe.opaque import Functions
from nondet_probe.probe.operands import tensors_in, unreadable
from nondet_probe.probe.places import Places
from nondet_probe.probe.plan import Plan, Treatment, plan_of
from nondet_probe.probe.replay import (
    Call,
    Difference,
    NotComparableError,
    TooLargeError,
    difference,
    results,
)
from nondet_probe.probe.suspects import Suspects
from nondet_probe.probe.tally import Tally
from nondet_probe.records import Coverage

__all__ = ["MEMORY", "RerunMode"]

MEMORY = 4 << 30
"""Bytes that the copies and results of one execution may take."""

_PLAIN = (torch.Tensor, torch.nn.Parameter)


class RerunMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """Executes each op `k` times in all, suspects `suspect_k` times; see the module.

    memory: bytes that the copies and results of one more execution of a call may take; a call that
    would take more is not covered. census: is told of every call. watcher: called before each op,
    with the number of ops before it. coverage, tally: what it found so far. A forked child (a
    DataLoader's worker) inherits the mode, and is left alone by it.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        k: int,
        model: torch.nn.Module | None = None,
        *,
        suspect_k: int | None = None,
        memory: int = MEMORY,
        census: Census | None = None,
        watcher: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._process = os.getpid()
        self._suspects = Suspects(k, suspect_k)
        self._memory = memory
        self._census = census
        self._watcher = watcher
        self._functions = Functions()
        self.places = Places(model)
        self.coverage = Coverage()
        self.tally = Tally()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Without this, torch runs a compiled module eagerly under the mode and ever after."""
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
        if self._watcher is not None:
            self._watcher(self.coverage.seen)
        self.coverage.seen += 1
        plan = plan_of(func)
        operands = list(tensors_in((*args, *kwargs.values())))
        if plan.treatment is not Treatment.RERUN:
            return self._leave_out(plan, func, args, kwargs)
        reason = _excluded(types, operands)
        if reason is not None:
            self._not_covered(reason)
            self.places.pass_over()
            return func(*args, **kwargs)
        return self._rerun(plan, func, args, kwargs, operands)

    def _leave_out(
        self, plan: Plan, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if plan.treatment is Treatment.VIEW:
            self.coverage.views += 1
        elif plan.treatment is Treatment.ALLOCATION:
            self.coverage.allocations += 1
        else:
            self._not_covered(plan.reason)
        self.places.pass_over()
        return func(*args, **kwargs)

    def _rerun(
        self,
        plan: Plan,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        operands: list[torch.Tensor],
    ) -> Any:
        for reason in self._functions.reasons(operands):
            self._not_covered(reason)
        place = self.places.locate()
        try:
            with hidden_from_modes():
                call = Call(func, plan, args, kwargs, memory=self._memory)
        except TooLargeError as error:
            self._not_covered(str(error))
            return func(*args, **kwargs)
        except Exception as error:
            self._not_covered(f"{plan.name}: its operands cannot be copied ({_told(error)})")
            return func(*args, **kwargs)
        output = func(*args, **kwargs)
        if plan.may_alias and _aliases(output, operands):
            self.coverage.views += 1
            return output
        try:
            with hidden_from_modes():
                executions, found = self._differences(call, results(plan, args, kwargs, output))
                self.tally.add(place, executions, found, call)
        except NotComparableError as error:
            self._not_covered(str(error))
        except Exception as error:
            self._not_covered(f"{plan.name}: executing it again failed ({_told(error)})")
        else:
            self.coverage.rerun += 1
        return output

    def _differences(self, call: Call, first: list[Any]) -> tuple[int, list[Difference]]:
        """How often the call was executed in all, and what differed from `first`."""
        if call.secret_write():
            raise NotComparableError(f"{call.plan.name} writes an operand its schema does not name")
        if call.copied_bytes + sum(t.nbytes for t in tensors_in(first)) > self._memory:
            raise TooLargeError(self._memory)
        executions, found = self._suspects.executions(call), []
        after = call.streams_now()
        done = 1
        try:
            while done < executions:
                one = difference(first, call.again())
                done += 1
                if one is not None:
                    found.append(one)
                    executions = max(executions, self._suspects.differed(call))
            if self._census is not None:
                self._census.add(call, first, done, len(found))
        finally:
            if after is not None:
                after.put_back()
        return done, found

    def _not_covered(self, reason: str) -> None:
        missed = self.coverage.not_covered
        missed[reason] = missed.get(reason, 0) + 1


def _excluded(types: Sequence[type], operands: list[torch.Tensor]) -> str | None:
    for kind in types:
        if kind not in _PLAIN:
            return f"operands of tensor subclass {kind.__name__}"
    for tensor in operands:
        reason = unreadable(tensor)
        if reason is not None:
            return reason
    return None


def _aliases(output: Any, operands: list[torch.Tensor]) -> bool:
    memory = {tensor.untyped_storage().data_ptr() for tensor in operands}
    return any(tensor.untyped_storage().data_ptr() in memory for tensor in tensors_in([output]))


def _told(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".removesuffix(": ")
