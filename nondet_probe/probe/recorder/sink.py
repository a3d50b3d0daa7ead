"""What all parts of a recording write to: it knows the step, and what of it is to be recorded."""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from nondet_probe.env.torch_private import has_compiled_code, hidden_from_modes
from nondet_probe.errors import RecordError
from nondet_probe.probe.recorder.pending import Pending, settled
from nondet_probe.records.fault import Injection
from nondet_probe.records.trace import LEVELS, SETUP, Site, TraceMeta, Words

__all__ = ["Part", "Schedule", "Sink", "Writer"]

Part = AbstractContextManager[object]
"""Built with the Sink: entering it installs what it watches with, leaving removes all of that."""

Schedule = Callable[[int], Any]
"""What `torch.profiler.schedule` makes: the step's number to a `torch.profiler.ProfilerAction`."""

_RECORDED = (
    torch.profiler.ProfilerAction.RECORD,
    torch.profiler.ProfilerAction.RECORD_AND_SAVE,
)
_ALL = re.compile("")
_OTHER_THREADS = "what other threads of the program ran"
_COMPILED = "steps that may have run code of torch.compile, the inside of which is not seen"


class Writer(Protocol):
    """What a sink needs of `nondet_probe.records.trace_writer.TraceWriter`."""

    meta: TraceMeta

    def site(self, site: Site) -> int: ...
    def add(
        self,
        step: int,
        site: int,
        inputs: Words | None,
        outputs: Words | None,
        value: float | None = None,
    ) -> int: ...
    def sketch(
        self, step: int, form: str, shapes: Mapping[str, Sequence[int]], buckets: bytes
    ) -> None: ...
    def flush(self) -> None: ...
    def update(self) -> None: ...


class Sink:
    """step: the one that runs, SETUP before the first. active: whether it is recorded. level,
    inputs: of the recording, as in `TraceMeta`, which also holds the names asked for, checked.
    seconds: that the parts took in this step; they add their own. backward_runs: within a backward
    pass that the program's thread began. failure: why nothing more can be written.

    schedule: which steps are recorded; None for all, and for the setup, which otherwise is recorded
    if an attribute `records_setup` says so. A step left out costs nothing but the counting.
    """

    def __init__(self, writer: Writer, *, schedule: Schedule | None = None) -> None:
        meta = writer.meta
        self.level = meta.level
        self.inputs = meta.inputs
        self.step = SETUP
        self.active = schedule is None or getattr(schedule, "records_setup", False)
        self.seconds = 0.0
        self.backward_runs = False
        self._writer = writer
        self._schedule = schedule
        self._names = _ALL if meta.names is None else re.compile(meta.names)
        self._wanted: dict[str, bool] = {}
        self._thread = threading.get_ident()
        self._starts: list[Callable[[], None]] = []
        self._ends: list[Callable[[], None]] = []
        self._every: list[Callable[[], None]] = []
        self._batches: list[Callable[[str, Any], None]] = []
        self._in_setup: list[Callable[[], None]] = []
        self._looking = False
        self._turns: list[Callable[[bool], None]] = []
        self._pending: list[tuple[int, int, Any, Any, Any]] = []
        self._began = time.perf_counter()
        self._switched_off = False
        self._written: Callable[[int], None] | None = None
        self._stopping: Callable[[], None] | None = None
        self.failure: RecordError | None = None
        _sinks.add(self)

    def records(self, level: str) -> bool:
        """Whether the recording is of this level or a finer one."""
        return LEVELS.index(self.level) >= LEVELS.index(level)

    def owns_thread(self) -> bool:
        """Whether this is the thread that the recording began on."""
        return threading.get_ident() == self._thread

    def sees(self) -> bool:
        """Whether what runs now, on this thread, is to be recorded; counted where it is not for
        being on another one. A backward pass that the program's thread began counts as its own."""
        if not self.active:
            return False
        if not self.backward_runs and not self.owns_thread():
            self.not_covered(_OTHER_THREADS)
            return False
        return True

    def wants(self, name: str | None) -> bool:
        """Whether the name filter lets through what concerns this module or parameter."""
        if self._names is _ALL:
            return True
        if name is None:
            return False
        wanted = self._wanted.get(name)
        if wanted is None:
            wanted = self._wanted[name] = self._names.search(name) is not None
        return wanted

    def add(
        self,
        site: Site,
        outputs: Words | Pending | None,
        inputs: Words | Pending | None = None,
        value: float | torch.Tensor | None = None,
    ) -> None:
        """One record of the step that runs; none when it is not active, or on another thread.

        What is pending, and a value that is a tensor of one element, is settled when the step ends,
        with everything after it, so that the order stays.
        """
        if not self.sees():
            return
        if self.step == SETUP and not self._looking:
            self._looking = True
            try:
                self._called(self._in_setup)
            finally:
                self._looking = False
        number = self._writer.site(site)
        if (
            not self._pending
            and (outputs is None or type(outputs) is tuple)
            and (inputs is None or type(inputs) is tuple)
            and not isinstance(value, torch.Tensor)
        ):
            self._writer.add(self.step, number, inputs, outputs, value)
        else:
            self._pending.append((self.step, number, inputs, outputs, value))

    def sketch(self, form: str, shapes: Mapping[str, Sequence[int]], buckets: bytes) -> None:
        """The sketch of the step that runs, as `TraceWriter.sketch` takes it."""
        if self.sees():
            self._writer.sketch(self.step, form, shapes, buckets)

    def not_covered(self, reason: str, times: int = 1) -> None:
        """Something could not be seen."""
        if self.active:
            missed = self._writer.meta.coverage.not_covered
            missed[reason] = missed.get(reason, 0) + times

    def left_out(self, *, views: int = 0, allocations: int = 0) -> None:
        """Calls of ops that compute nothing."""
        self._writer.meta.coverage.views += views
        self._writer.meta.coverage.allocations += allocations

    def caveat(self, sentence: str) -> None:
        """What the reader must know, without a full stop; said once."""
        if sentence not in self._writer.meta.caveats:
            self._writer.meta.caveats.append(sentence)

    def idle(self, generators: list[str]) -> None:
        """From these nothing was drawn since the recording began."""
        self._writer.meta.idle = generators

    def at_step_start(self, call: Callable[[], None]) -> None:
        """`call` at the start of every step that is recorded, in the order of the parts."""
        self._starts.append(call)

    def at_step_end(self, call: Callable[[], None]) -> None:
        """`call` at the end of every step that is recorded."""
        self._ends.append(call)

    def at_every_step(self, call: Callable[[], None]) -> None:
        """`call` where a step begins, recorded or not, before anything of it is looked at."""
        self._every.append(call)

    def at_batch(self, call: Callable[[str, Any], None]) -> None:
        """`call` with the loader's name and the batch for each one drawn, before it is recorded."""
        self._batches.append(call)

    def drawn(self, loader: str, batch: Any) -> None:
        """A loader handed out a batch."""
        for call in self._batches:
            call(loader, batch)

    def injected(self, injection: Injection) -> None:
        """Something of the training was changed on purpose."""
        self._writer.meta.injected = injection
        self.caveat(str(injection))

    def when_written(self, call: Callable[[int], None]) -> None:
        """`call` with the number of each recorded step once that is written; it may `stop`."""
        self._written = call

    def before_records_of_setup(self, call: Callable[[], None]) -> None:
        """`call` before each record of the setup, in which no step begins."""
        self._in_setup.append(call)

    def at_turn(self, call: Callable[[bool], None]) -> None:
        """`call` with `active` whenever that changes from one step to the next."""
        self._turns.append(call)

    def begin_step_if_setup(self) -> None:
        """The first batch is drawn, or the first forward or backward begins: the setup is over."""
        if self.step == SETUP and self.owns_thread() and not self._switched_off:
            self._finish()
            self._tell_written()
            self._begin(0)

    def end_step(self) -> None:
        """The step that runs is over, and the next one begins."""
        if self._stopping is not None and self.owns_thread():
            # The program caught what `stop` raised, and went on.
            self._stopping()
        if self._switched_off or not self.owns_thread():
            return
        self.begin_step_if_setup()
        if self.active:
            self._called(self._ends)
            if has_compiled_code():
                self.not_covered(_COMPILED)
        self._finish()
        self._tell_written()
        self._begin(self.step + 1)

    def close(self) -> None:
        """Everything is written; nothing is recorded after this."""
        if self._switched_off:
            return
        self._finish(whole=False)
        self.switch_off()

    def not_counted(self, seconds: float) -> None:
        """These belong neither to the step that runs nor to what recording costs."""
        self._began += seconds

    def stop(self, stopping: Callable[[], None]) -> None:
        """Nothing is recorded after this, and the program is stopped, by what `stopping` raises: at
        once, and where it catches that, at the end of its next step."""
        self._finish(whole=False)
        self.switch_off()
        try:
            self._writer.update()
        except RecordError as error:
            self.failure = error
        self._stopping = stopping
        stopping()

    def switch_off(self) -> None:
        """As in a forked child: nothing is recorded or written any more."""
        self.active = False
        self._switched_off = True

    def _begin(self, step: int) -> None:
        self.step = step
        if self._switched_off:
            return
        for call in self._every:
            call()
        before = self.active
        self.active = self._schedule is None or self._schedule(step) in _RECORDED
        if self.active is not before:
            for turn in self._turns:
                turn(self.active)
        self._began = time.perf_counter()
        if self.active:
            self._called(self._starts)

    def _tell_written(self) -> None:
        if self._written is not None and self.active:
            self._written(self.step)

    def _called(self, calls: list[Callable[[], None]]) -> None:
        start = time.perf_counter()
        with hidden_from_modes(), torch.no_grad():
            for call in calls:
                call()
        self.seconds += time.perf_counter() - start

    def _finish(self, *, whole: bool = True) -> None:
        """What the step left is written. whole: it came to its end."""
        if not self.active:
            return
        start = time.perf_counter()
        for step, site, inputs, outputs, value in settled(self._pending):
            self._writer.add(step, site, inputs, outputs, value)
        self._pending.clear()
        try:
            self._writer.flush()
        except RecordError as error:
            # The program goes on; it would not know what to do with this.
            self.failure = error
            self.switch_off()
            return
        now = time.perf_counter()
        self.seconds += now - start
        cost = self._writer.meta.cost
        if cost is not None and self.step != SETUP:
            cost.steps += whole
            cost.seconds += now - self._began
            cost.probe_seconds += self.seconds
        self.seconds = 0.0


# A forked child inherits the parts, the writer and a dead pool of threads: it must use none.
_sinks: weakref.WeakSet[Sink] = weakref.WeakSet()


def _in_child() -> None:
    for sink in list(_sinks):
        sink.switch_off()


os.register_at_fork(after_in_child=_in_child)
