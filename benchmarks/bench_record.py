"""What a recording costs: each level beside the plain step, with one thread and two.

python -m pytest benchmarks/bench_record.py --benchmark-enable

The training step of four transformer encoder layers of width 256, batch 8 x 64, AdamW with
`foreach`. All run in turn, step by step, each a training of its own; the ratio is that of every
step to the plain one of its round. Beside them: recordings that a schedule leaves out ("off"), a
dispatch mode that does nothing, and `torch.utils._debug_mode` with its hashes of outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from _harness import keep_memory
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn
from torch.profiler import ProfilerAction
from torch.utils._python_dispatch import TorchDispatchMode

import nondet_probe as ndp

ROUNDS = 24  # steps of each
BATCH, LENGTH, WIDTH, HEADS, LAYERS = 8, 64, 256, 4, 4

keep_memory()

# name -> (arguments of record, times the plain step at most)
LEVELS: dict[str, tuple[dict[str, Any], float]] = {
    "off": ({"level": "op", "schedule": lambda step: ProfilerAction.NONE}, 1.10),
    "step": ({"level": "step"}, 1.03),
    "module": ({"level": "module"}, 1.15),
    "op outputs": ({"level": "op", "outputs_only": True}, 1.45),
    "op": ({"level": "op"}, 1.7),
}


class Empty(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def training() -> Callable[[], object]:
    """A function that takes the next step of a training of its own."""
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(WIDTH, HEADS, batch_first=True) for _ in range(LAYERS)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    x = torch.randn(BATCH, LENGTH, WIDTH)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


@contextmanager
def debug_mode() -> Iterator[Any]:
    from torch.utils._debug_mode import DebugMode

    with DebugMode() as mode, mode.log_tensor_hashes(hash_fn="hash_tensor"):
        yield


class Recorded:
    """Steps under a recording that lasts over all of them, entered for each step only: what it
    installs would be seen by the others too."""

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self._step = training()
        self.recording = ndp.record(folder, **arguments)
        self._parts = ExitStack()

    def __call__(self) -> None: ...


@pytest.mark.parametrize("threads", [1, 2])
def test_record(threads: int, benchmark: BenchmarkFixture) -> None:
    pass
