"""The state of every random generator, at the start of each step."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import torch

from nondet_probe.env.torch_private import hidden_from_modes
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.trace import Site, Words

__all__ = ["Generators", "numpy_state", "python_state", "torch_state"]


class Generators:
    """Records the generators of the process: Python's, NumPy's legacy one, torch's on the CPU and,
    where CUDA is initialised, on each device. Some 90 us a step, most of it NumPy's own copying.

    Reading a state draws nothing. Who was drawn from in the steps is told at the end: a generator
    that nobody seeded begins every process in another state, which matters only if it is used (what
    the setup draws shows in what it is used for). A
    `numpy.random.Generator` belongs to whoever made it and cannot be found; what it draws shows in
    what it is used for. Generators handed to loaders are recorded by `Loaders`.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._first: dict[str, Words] = {}
        self._moved: set[str] = set()
        self._stepped = False
        sink.at_step_start(self._record)

    def __enter__(self) -> Generators:
        self._first = dict(_states())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """There is nothing to remove: the sink calls, and only while it records."""
        self.look()

    def look(self) -> None:
        """Tell the sink which ones nothing was drawn from until now."""
        for name, words in _states():
            self._note(name, words)
        self._tell()

    def _record(self) -> None:
        states = dict(_states())
        if not self._stepped:
            self._stepped = True
            self._first = states
        for name, words in states.items():
            self._note(name, words)
            self._sink.add(Site("data", "rng", name), words)
        self._tell()

    def _tell(self) -> None:
        self._sink.idle([name for name in self._first if name not in self._moved])

    def _note(self, name: str, words: Words) -> None:
        if words != self._first.get(name):
            self._moved.add(name)


def _states() -> Iterator[tuple[str, Words]]:
    yield "python", python_state()
    yield "numpy", numpy_state()
    yield "torch cpu", torch_state(torch.default_generator)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for number, generator in enumerate(torch.cuda.default_generators):
            yield f"torch cuda:{number}", torch_state(generator)


def python_state() -> Words:
    """The digest of the state of `random`'s own generator."""
    version, words, gauss = random.getstate()
    return _words(array("I", words), f"{version} {_hex(gauss)}")


def numpy_state() -> Words:
    """The digest of the state of `numpy.random`'s own generator, of whatever kind it is."""
    state: Any = np.random.get_state(legacy=False)
    kept = state["state"]
    if set(kept) == {"key", "pos"}:
        rest = f"{state['bit_generator']} {kept['pos']} {state['has_gauss']} {_hex(state['gauss'])}"
        return _words(kept["key"], rest)
    return _words(b"", repr(state))


def torch_state(generator: torch.Generator) -> Words:
    """The digest of the state of a generator of torch."""
    with hidden_from_modes():
        return _words(generator.get_state().numpy(), str(generator.device))


def _hex(value: float | None) -> str:
    return "None" if value is None else float(value).hex()


def _words(state: Any, rest: str) -> Words:
    """blake2b and nothing of torch's: a forked worker, whose pool of threads is dead, calls it."""
    whole = hashlib.blake2b(state, digest_size=16)
    whole.update(rest.encode())
    found = whole.digest()
    return (
        int.from_bytes(found[:8], "big", signed=True),
        int.from_bytes(found[8:], "big", signed=True),
    )
