"""Batches as they are drawn: their data, the indices of their samples, their workers' seeds.

A `DataLoader` has no hook, so the methods that hand out batches are wrapped, for the process, while
a recording goes on. A wrapper calls the original with what it was given and returns what came back;
it draws nothing, asks a loader for nothing, and changes no order.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch

from nondet_probe.env.torch_private import LoaderMethods, hidden_from_modes, loader_methods
from nondet_probe.probe.recorder.contents import contents, words_of_text
from nondet_probe.probe.recorder.generators import torch_state
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.recorder.worker_report import WorkerReport, read_report
from nondet_probe.records.trace import Site, Words

__all__ = ["Loaders"]

# In the places of a worker's number and of an iterator's.
_BASE = -1
_UNKNOWN = -1


@dataclass
class _Drawing:
    """One iterator of a loader. number: of the iterator. indices: of batches asked for, by their
    task. before: the generator's state when the base seed was drawn from it. told: workers whose
    seeds are recorded, _BASE the base seed. worker, index: of the batch that has its turn."""

    loader: str
    number: int
    before: Words | None = None
    indices: dict[int, Any] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    worker: int | None = None
    index: Any = None


class Loaders:
    """Records every batch that a `DataLoader` of the process hands out on the program's thread.

    A batch is "loader 0" (loaders count in the order of their first iteration), its note "worker 2"
    where a worker made it. Before the first batch of a worker comes what that worker drew: its seed
    and its generators as the user's `worker_init_fn` left them, which it reports through a file.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._originals: list[tuple[type, str, Any]] = []
        # By id, since a loader may compare as it likes.
        self._loaders: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._drawings: weakref.WeakKeyDictionary[Any, _Drawing] = weakref.WeakKeyDictionary()
        self._generators: list[tuple[str, weakref.ref[torch.Generator]]] = []
        self._directory: str | None = None
        self._made = 0
        self._named = 0
        self._making: list[_Drawing] = []
        self._process = os.getpid()
        self._thread = threading.get_ident()
        sink.at_step_start(self._record_generators)

    def __enter__(self) -> Loaders:
        methods = loader_methods()
        if methods is None:
            self._sink.caveat("batches are not seen: this torch makes them in an unknown way")
            return self
        self._wrap(methods.make, self._make)
        self._wrap(methods.indices, self._indices)
        self._wrap(methods.fetched, self._fetched)
        self._wrap(methods.draw, self._draw)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for owner, name, original in reversed(self._originals):
            setattr(owner, name, original)
        self._originals.clear()
        if self._directory is not None and os.getpid() == self._process:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _wrap(self, place: tuple[type, str], wrapper: Callable[..., Any]) -> None:
        owner, name = place
        original = vars(owner)[name]

        @functools.wraps(original)
        def method(one: Any, *args: Any) -> Any:
            # A forked child has the wrappers too: a worker may itself load.
            if os.getpid() != self._process:
                return original(one, *args)
            if threading.get_ident() != self._thread:
                if wrapper == self._draw:
                    self._sink.not_covered("batches drawn on other threads")
                return original(one, *args)
            return wrapper(original, one, *args)

        setattr(owner, name, method)
        self._originals.append((owner, name, original))

    def _make(self, original: Callable[..., Any], loader: Any) -> Any:
        drawing = _Drawing(self._name(loader), self._made)
        self._made += 1
        drawing.before = torch_state(loader.generator or torch.default_generator)
        given = loader.worker_init_fn
        if loader.num_workers:
            loader.worker_init_fn = WorkerReport(self._place(), drawing.number, given)
        # Indices are drawn while an iterator is made, when nobody else knows it yet.
        self._making.append(drawing)
        try:
            iterator = original(loader)
        finally:
            self._making.pop()
            loader.worker_init_fn = given
        self._drawings[iterator] = drawing
        return iterator

    def _indices(self, original: Callable[..., Any], iterator: Any) -> Any:
        index = original(iterator)
        drawing = self._drawing(iterator)
        task = LoaderMethods.next_task(iterator)
        if task == 0:  # of this batch, or of the first one of another epoch
            drawing.indices.clear()
        drawing.indices[task] = index
        return index

    def _fetched(self, original: Callable[..., Any], iterator: Any, *args: Any) -> Any:
        drawing = self._drawing(iterator)
        still_open = LoaderMethods.open_tasks(iterator)
        done = [task for task in drawing.indices if task not in still_open]
        found = [drawing.indices.pop(task) for task in done]
        drawing.index = found[0] if len(found) == 1 else None
        drawing.worker = args[-1]
        return original(iterator, *args)

    def _draw(self, original: Callable[..., Any], iterator: Any) -> Any:
        self._sink.begin_step_if_setup()
        drawing = self._drawing(iterator)
        batch = original(iterator)
        if drawing.worker is None and drawing.indices:
            _, drawing.index = drawing.indices.popitem()
        self._sink.drawn(drawing.loader, batch)
        if self._sink.active:
            start = time.perf_counter()
            with hidden_from_modes(), torch.no_grad():
                self._record_seeds(iterator, drawing)
                self._record_batch(drawing, batch)
            self._sink.seconds += time.perf_counter() - start
        return batch

    def _record_seeds(self, iterator: Any, drawing: _Drawing) -> None:
        seed = LoaderMethods.base_seed(iterator)
        base = words_of_text(str(seed))
        if seed is not None and _BASE not in drawing.told:
            drawing.told.add(_BASE)
            self._sink.add(_rng(f"base seed of {drawing.loader}"), base, drawing.before)
        worker = drawing.worker
        if worker is None or worker in drawing.told:
            return
        drawing.told.add(worker)
        # The worker wrote it before it fetched its first batch, which is here.
        report = read_report(self._place(), drawing.number, worker)
        if report is None:
            self._sink.not_covered("random generators of a loader's worker, which left no report")
            return
        own = words_of_text(str(report.pop("seed")[0]))
        whose = f"worker {worker} of {drawing.loader}"
        self._sink.add(_rng(f"seed of {whose}"), own, base)
        for name, (first, second) in report.items():
            self._sink.add(_rng(f"{name} of {whose}"), (first, second), own)

    def _record_batch(self, drawing: _Drawing, batch: Any) -> None:
        outputs, unread = contents(batch)
        for what in unread:
            self._sink.not_covered(f"in batches: {what}")
        note = None if drawing.worker is None else f"worker {drawing.worker}"
        site = Site("data", "batch", drawing.loader, note=note)
        self._sink.add(site, outputs, _of_indices(drawing.index))

    def _record_generators(self) -> None:
        for name, reference in self._generators:
            generator = reference()
            if generator is not None:
                self._sink.add(_rng(name), torch_state(generator))

    def _drawing(self, iterator: Any) -> _Drawing:
        found = self._drawings.get(iterator)
        if found is None:
            # Being made, or made before the recording began: its loader is not known then.
            found = self._making[-1] if self._making else _Drawing(self._next_name(), _UNKNOWN)
            self._drawings[iterator] = found
        return found

    def _name(self, loader: Any) -> str:
        known = self._loaders.get(id(loader))
        if known is not None and known[0]() is loader:
            return known[1]
        name = self._next_name()
        self._loaders[id(loader)] = weakref.ref(loader), name
        self._learn_generators(loader, name)
        return name

    def _next_name(self) -> str:
        self._named += 1
        return f"loader {self._named - 1}"

    def _learn_generators(self, loader: Any, name: str) -> None:
        known = {id(reference()) for _, reference in self._generators}
        batches = getattr(loader, "batch_sampler", None)
        for whose, owner in (
            (name, loader),
            (f"the sampler of {name}", getattr(loader, "sampler", None)),
            (f"the batch sampler of {name}", batches),
            (f"the batch sampler of {name}", getattr(batches, "sampler", None)),
        ):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator) and id(generator) not in known:
                known.add(id(generator))
                self._generators.append((f"generator of {whose}", weakref.ref(generator)))

    def _place(self) -> str:
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix="nondet-probe-")
        return self._directory


def _rng(name: str) -> Site:
    return Site("data", "rng", name)


def _of_indices(index: Any) -> Words | None:
    """None for an iterable data set, which is asked for so many samples and not for which."""
    if index is None or (isinstance(index, list) and all(one is None for one in index)):
        return None
    return contents(index)[0]
