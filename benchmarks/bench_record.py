"""What a recording costs: every level beside the plain step, with one thread and with two.

python -m pytest benchmarks/bench_record.py --benchmark-enable

The training step of four transformer encoder layers of width 256, batch 8 x 64, AdamW with
`foreach`. All take a step in turn, each of a training of its own, and a ratio is that of a step to
the plain one of its round. What a level installs is there during its own steps only, and putting it
there is not timed. "off" is a recording whose schedule leaves the steps out, beside a mode that
does nothing and torch's own DebugMode, without hashes and with the hashes of outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from _harness import Row, Spread, interleave, keep_memory, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn
from torch.profiler import ProfilerAction
from torch.utils._debug_mode import DebugMode
from torch.utils._python_dispatch import TorchDispatchMode

from nondet_probe.env import thread_count
from nondet_probe.probe.recorder.parts import parts_of
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.trace import TraceCost, TraceMeta
from nondet_probe.records.trace_writer import TraceWriter

ROUNDS = 30  # steps of each
BATCH, LENGTH, WIDTH, HEADS, LAYERS = 8, 64, 256, 4, 4

keep_memory()

# name -> (level, whether with inputs, times the plain step at most)
LEVELS: dict[str, tuple[str, bool, float]] = {
    "step": ("step", True, 1.03),
    "module": ("module", True, 1.15),
    "op, outputs": ("op", False, 1.45),
    "op": ("op", True, 1.7),
}
# Bytes of a record on disk, at most.
RECORD_BYTES = 64

Step = Callable[[], object]
Under = Callable[[], AbstractContextManager[object]]


class Empty(TorchDispatchMode):
    """Does nothing, for every op."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def training() -> tuple[nn.Module, torch.optim.Optimizer, Step]:
    """A model, its optimizer, and a function that takes the next step."""
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(WIDTH, HEADS, batch_first=True) for _ in range(LAYERS)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    x = torch.randn(BATCH, LENGTH, WIDTH)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return model, optimizer, step


def recorded(folder: Path, level: str, inputs: bool, *, off: bool = False) -> tuple[Step, Under]:
    """A training and what puts its recording's parts there for a step."""
    model, optimizer, step = training()
    meta = TraceMeta(level, inputs, None, "", {}, "", cost=TraceCost(1.0))
    sink = Sink(
        TraceWriter(folder, meta), schedule=(lambda step: ProfilerAction.NONE) if off else None
    )
    parts = parts_of(sink, model, optimizer).every

    @contextmanager
    def under() -> Iterator[None]:
        with ExitStack() as stack:
            for part in parts:
                stack.enter_context(part)
            yield

    return step, under


@contextmanager
def debug_mode(hashes: bool) -> Iterator[None]:
    with DebugMode() as mode, ExitStack() as stack:
        if hashes:
            stack.enter_context(mode.log_tensor_hashes(hash_fn="norm"))
        yield


@pytest.mark.parametrize("threads", [1, 2])
def test_step(threads: int, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    calls: dict[str, Step] = {"plain step": training()[2]}
    under: dict[str, Under] = {}
    calls["recording off"], under["recording off"] = recorded(
        tmp_path / "off", "op", True, off=True
    )
    for name, (level, inputs, _) in LEVELS.items():
        calls[name], under[name] = recorded(tmp_path / name, level, inputs)
    calls["empty mode"], under["empty mode"] = training()[2], Empty
    for name, hashes in (("DebugMode", False), ("DebugMode, hashes", True)):
        calls[name] = training()[2]
        under[name] = lambda hashes=hashes: debug_mode(hashes)  # type: ignore[misc]
    with thread_count(threads):
        times = interleave(calls, ROUNDS, under=under)
        with under["op"]():
            benchmark.pedantic(calls["op"], rounds=3)
    shape = ("float32", BATCH * LENGTH * WIDTH, threads)
    rows = []
    median, least = {}, {}
    for name, seconds in times.items():
        rows.append(Row("training step", name, *shape, "time", "s", Spread.of(seconds)))
        if name == "plain step":
            continue
        ratio = ratios(seconds, times["plain step"])
        median[name] = ratio.median
        least[name] = min(seconds) / min(times["plain step"])
        rows.append(Row("training step", name, *shape, "ratio to plain step", "x", ratio))
        low = Spread.of([least[name]])
        rows.append(Row("training step", name, *shape, "ratio of minima", "x", low))
    write_rows("record", rows)
    for name, (_, _, bound) in LEVELS.items():
        assert min(median[name], least[name]) <= bound, name


def test_size_on_disk(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    model, optimizer, step = training()
    meta = TraceMeta("op", True, None, "", {}, "", cost=TraceCost(1.0))
    writer = TraceWriter(tmp_path / "trace", meta)
    sink = Sink(writer)
    with ExitStack() as stack:
        for part in parts_of(sink, model, optimizer).every:
            stack.enter_context(part)
        benchmark.pedantic(step, rounds=10)
    sink.close()
    writer.close()
    size = sum(path.stat().st_size for path in (tmp_path / "trace").glob("*.sqlite"))
    each = size / writer.meta.coverage.records
    figure = ("bytes a record", "B", Spread.of([each]))
    write_rows("record", [Row("trace on disk", "op", "float32", 10, 1, *figure)])
    assert each < RECORD_BYTES
