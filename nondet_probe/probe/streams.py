"""The random streams that one op may move: read before it runs, put back between executions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from nondet_probe.env.rng import RngState

__all__ = ["Streams"]


class Streams:
    """torch's default generators (CPU, and CUDA once it is initialised) and those given to the op.

    everything: also Python's and NumPy's streams, for code that is not torch's own.
    """

    def __init__(self, arguments: Iterable[Any], *, everything: bool = False) -> None:
        self._generators = [torch.default_generator]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._generators += torch.cuda.default_generators
        self._generators += [value for value in arguments if isinstance(value, torch.Generator)]
        self._everything = everything
        self.read()

    def read(self) -> None:
        """Remember the streams as they are now."""
        self._states = [generator.get_state() for generator in self._generators]
        self._rest = RngState.capture() if self._everything else None

    def put_back(self) -> None:
        """As they were when last read."""
        if self._rest is not None:
            self._rest.restore()
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
