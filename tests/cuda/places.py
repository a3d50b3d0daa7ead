"""Where the tests of the ops on GPUs run: on the emulated grid, and on a GPU where there is one.

The same test bodies run on both, so that what they do has been done before there is a GPU. On the
emulated grid tensors are on cpu and `inside` sends them the way of those on cuda; it has no
streams, no graphs and no synchronisation, and what a test says of these is left out there.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
import torch
from emulated import emulated
from torch import Tensor

from nondet_probe.bits import count_different
from nondet_probe.bits import device as launches
from nondet_probe.ops import via, via_cuda
from nondet_probe.ops.registry import Guarantee, find, ops, variants
from nondet_probe.probe.cases import CASES, Case

__all__ = ["CELLS", "GPU", "WAITING", "Cell", "Place", "differences", "emulated_place"]

Inputs = tuple[Tensor, ...]

WAITING = frozenset(
    {
        *("index_add", "scatter_add", "index_put", "index", "embedding"),
        *("segment_sum", "bincount", "histogram", "cross_entropy"),
    }
)
"""Ops that read back from the GPU whether their indices are in range (docs/cuda.md)."""


@dataclass(frozen=True)
class Cell:
    """A variant with a kernel in CUDA, of one op in one dtype."""

    case: Case
    variant: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.case.name}-{self.variant}-{str(self.dtype).removeprefix('torch.')}"

    def call(self, inputs: Inputs) -> Inputs:
        return self.case.ours(self.variant, inputs)

    @property
    def guarantee(self) -> Guarantee:
        return find(self.case.op, self.variant).guarantee

    def inputs(self, n: int) -> Inputs:
        return self.case.make(n, self.dtype)


CELLS = [
    Cell(case, variant.name, dtype)
    for op in ops()
    if op != "attention"  # has kernels in Triton alone
    for case in CASES[op]
    for variant in variants(op)
    if variant.name not in ("kahan", "pairwise")  # baselines of accuracy, on the CPU alone
    for dtype in variant.dtypes
    if dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
]


@dataclass(frozen=True)
class Place:
    """device: of tensors; sizes: numbers of elements, small and large, that are quick here.

    inside(): ops on tensors of the device go to the kernels for GPUs. seed(turn): for the emulated
    grid's order of warps and blocks. capturing(): as while a graph is captured.
    """

    device: torch.device
    sizes: tuple[int, ...]
    large: int
    inside: Callable[[], AbstractContextManager[None]]
    seed: Callable[[int], None]
    capturing: Callable[[], AbstractContextManager[None]]

    def put(self, inputs: Sequence[Tensor]) -> Inputs:
        return tuple(tensor.to(self.device) for tensor in inputs)

    def result(self, cell: Cell, inputs: Inputs) -> Inputs:
        with self.inside():
            return cell.call(inputs)

    @contextlib.contextmanager
    def side_stream(self) -> Iterator[None]:
        """Work inside goes to a stream of its own, behind what is under way; afterwards that
        stream, and nothing else, has been waited for."""
        if self.device.type == "cpu":
            yield
            return
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            yield
        stream.synchronize()

    def delay(self) -> None:
        """The current stream is busy for some 20 ms."""
        if self.device.type == "cuda":
            torch.cuda._sleep(40_000_000)

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        """An error where torch waits for the device."""
        if self.device.type == "cpu":
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that it does not see all waiting
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def replayed(self, call: Callable[[], Inputs], prepare: Callable[[], None]) -> Inputs:
        """What a graph captured from `call` gives when it is replayed after `prepare`."""
        if self.device.type == "cpu":
            call()
            prepare()
            return call()
        with self.side_stream():  # kernels are loaded, buffers are there
            call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call()
        prepare()
        graph.replay()
        torch.cuda.synchronize(self.device)
        return results


def emulated_place(monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(launches, "_load", emulated)

    @contextlib.contextmanager
    def inside() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(via, "_on_cpu", via_cuda)
            yield

    @contextlib.contextmanager
    def capturing() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launches, "_captures", lambda _: True)
            yield

    def seed(turn: int) -> None:
        emulated().seed(1 + turn, 1 + turn % 5)

    seed(0)
    return Place(torch.device("cpu"), (2, 300), 20_000, inside, seed, capturing)


@contextlib.contextmanager
def _capturing() -> Iterator[None]:
    something = torch.zeros(1, device=GPU.device)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        something.add_(1)  # torch warns of graphs without any
        yield


GPU = Place(
    torch.device("cuda", 0),
    (2, 1000, 100_003),
    1 << 21,
    contextlib.nullcontext,
    lambda _: None,
    _capturing,
)


def differences(found: Sequence[Tensor], expected: Sequence[Tensor]) -> list[int]:
    """How many elements of each tensor have other bits."""
    return [count_different(a.cpu(), b.cpu()) for a, b in zip(found, expected, strict=True)]
