"""Every random stream of the process: seed them alike, save them, put them back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["RngState", "preserved_rng", "seed_all"]


@dataclass(frozen=True)
class RngState:
    """The state of Python's, NumPy's legacy and torch's default generators (CPU, each CUDA device).

    A CUDA generator is read only when CUDA is initialised: reading it would initialise it.
    """

    python: Any
    numpy: Any
    torch_cpu: torch.Tensor
    torch_cuda: tuple[torch.Tensor, ...]

    @classmethod
    def capture(cls) -> RngState:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), tuple(cuda))

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch_cpu)
        if self.torch_cuda:
            torch.cuda.set_rng_state_all(list(self.torch_cuda))

    def same_as(self, other: RngState) -> bool:
        """Whether both would give the same draws."""
        return (
            self.python == other.python
            and self.numpy[0] == other.numpy[0]
            and bool(np.array_equal(self.numpy[1], other.numpy[1]))
            and self.numpy[2:] == other.numpy[2:]
            and torch.equal(self.torch_cpu, other.torch_cpu)
            and len(self.torch_cuda) == len(other.torch_cuda)
            and all(map(torch.equal, self.torch_cuda, other.torch_cuda))
        )


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators with `seed`, 0 <= seed < 2**32."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed}: NumPy takes 0 to 2**32 - 1")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Put every stream back as it was found, whatever the body draws or raises."""
    state = RngState.capture()
    try:
        yield
    finally:
        state.restore()
