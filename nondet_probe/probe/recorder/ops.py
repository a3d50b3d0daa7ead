"""Every op that reaches the dispatcher: what it was given, and what it made of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch

from nondet_probe.env.torch_private import TorchDispatchMode, hidden_from_modes
from nondet_probe.probe.names import Names
from nondet_probe.probe.operands import tensors_in
from nondet_probe.probe.places import Place, Places
from nondet_probe.probe.plan import Plan, Treatment, plan_of
from nondet_probe.probe.recorder.aside import StepAside
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.inspection import Inspector
from nondet_probe.probe.recorder.pending import Pending
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.unread import read_operands
from nondet_probe.records.trace import SETUP, Site, Words

__all__ = ["Ops"]

# What a collective gave, once it was waited for.
_WAITED = frozenset(("_c10d_functional.wait_tensor.default", "c10d_functional.wait_tensor.default"))


class Ops:
    """The part of a recording that sees ops: a dispatch mode, on while the part is entered and in
    the steps that are recorded.

    inspection: is told of every call.
    """

    def __init__(self, sink: Sink, names: Names, inspection: Inspector | None = None) -> None:
        self._sink = sink
        self._mode = _Mode(sink, Places(names=names), inspection)
        self._stack: StepAside | None = None
        sink.at_turn(self._follow)

    def __enter__(self) -> Ops:
        self._mode.places.start()
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._stack = StepAside(self._mode)
        self._stack.follow(self._sink.active)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._follow(True)
        self._stack = None
        self._mode.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]

    def _follow(self, active: bool) -> None:
        if self._stack is not None:
            self._stack.follow(active)


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__
    supports_higher_order_operators = True

    def __init__(self, sink: Sink, places: Places, inspection: Inspector | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places = places
        self._sink = sink
        self._inspection = inspection
        self._digester = Digester(sink.not_covered)
        self._sites: dict[tuple[str, Place], Site] = {}

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
        sink = self._sink
        if not sink.active or not sink.sees():
            return func(*args, **kwargs)
        plan = plan_of(func)
        if plan.treatment is not Treatment.RERUN and plan.name not in _WAITED:
            return self._leave_out(plan, func, args, kwargs)
        start = time.perf_counter()
        place = self.places.locate()
        if not sink.wants(place.module):
            return func(*args, **kwargs)
        site = self._site(plan, place)
        states = self._generators(site, args, kwargs) if plan.draws else []
        inputs = self._guarded(plan, lambda: self._inputs(plan, func, args, kwargs, states))
        call = None
        if self._inspection is not None:
            with hidden_from_modes():
                call = self._inspection.begins(sink.step, site, func, plan, args, kwargs)
        called = time.perf_counter()
        output = func(*args, **kwargs)
        returned = time.perf_counter()
        if plan.may_alias and _aliases(output, args, kwargs):
            sink.left_out(views=1)
            return output
        outputs = self._guarded(plan, lambda: self._outputs(plan, args, kwargs, output))
        sink.add(site, outputs, inputs)
        sink.seconds += called - start + time.perf_counter() - returned
        if call is not None and self._inspection is not None:
            with hidden_from_modes():
                self._inspection.ended(call, site, inputs, output)
        return output

    def _leave_out(
        self, plan: Plan, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if plan.treatment is Treatment.VIEW:
            self._sink.left_out(views=1)
        elif plan.treatment is Treatment.ALLOCATION:
            self._sink.left_out(allocations=1)
        else:
            self._sink.not_covered(plan.reason)
        self.places.pass_over()
        return func(*args, **kwargs)

    def _guarded(
        self, plan: Plan, digest: Callable[[], Words | Pending | None]
    ) -> Words | Pending | None:
        """Whatever goes wrong with a digest must not reach the program."""
        try:
            return digest()
        except Exception as error:
            self._sink.not_covered(f"{plan.name}: {type(error).__name__}: {error}")
            return None

    def _generators(
        self, site: Site, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[torch.Tensor]:
        """The states of those that an op may draw from; each is a record before that of the op, so
        that a generator that was seeded otherwise is told from other tensors."""
        states = _generator_states(site.name, args, kwargs)
        for name, state in states.items():
            words = self._digester.words(state, name)
            note = f"as {site.name} draws from it"
            self._sink.add(site._replace(kind="rng", name=name, note=note), words)
        return list(states.values())

    def _inputs(
        self,
        plan: Plan,
        func: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        states: list[torch.Tensor],
    ) -> Words | Pending | None:
        given, named = read_operands(func, args, kwargs)
        if named:
            given.append(named)
        if not self._sink.inputs:
            text = self._digester.text(given)
            if not plan.draws:
                return text
            given = [*text]
        given += states
        return self._digester.words(given, plan.name)

    def _outputs(
        self, plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> Words | Pending | None:
        if (not plan.written and plan.outputs == 1) or plan.name in _WAITED:
            return self._digester.words(output, plan.name)
        given: list[Any] = []
        if plan.outputs == 1 and plan.new:
            given.append(output)
        elif plan.outputs > 1:
            given += [output[position] for position in plan.new]
        given += [
            args[position] if position < len(args) else kwargs.get(name)
            for position, name in plan.written
        ]
        return self._digester.words(given[0] if len(given) == 1 else given, plan.name)

    def _site(self, plan: Plan, place: Place) -> Site:
        key = plan.name, place
        site = self._sites.get(key)
        if site is None:
            note = place.note or ("recomputed" if place.again else None)
            kind = "collective" if plan.name in _WAITED else "op"
            site = Site(place.phase, kind, plan.name, place.module, place.file, place.line, note)
            self._sites[key] = site
        return site._replace(phase="setup") if self._sink.step == SETUP else site


def _generator_states(
    op: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """By name, of those that the op may draw from: its own one, or the default ones."""
    own = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Generator)]
    found = {f"generator given to {op.removesuffix('.default')}": one for one in own[:1]}
    if not own:
        found["torch cpu"] = torch.default_generator
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            for number, generator in enumerate(torch.cuda.default_generators):
                found[f"torch cuda:{number}"] = generator
    with hidden_from_modes():
        return {name: one.get_state() for name, one in found.items()}


def _aliases(output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    memory = {
        tensor.untyped_storage().data_ptr() for tensor in tensors_in((*args, *kwargs.values()))
    }
    return any(tensor.untyped_storage().data_ptr() in memory for tensor in tensors_in([output]))
