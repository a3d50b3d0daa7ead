"""How calls are measured on a device: one object for each kind, with everything that differs.

`CpuMeter` is for calls that have ended when they return, `CudaMeter` for those that go to a stream.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from nondet_probe.bits import device as kernels
from nondet_probe.bits import via_c
from nondet_probe.env import thread_count
from nondet_probe.errors import UsageError
from nondet_probe.probe import memory
from nondet_probe.probe.case_inputs import Inputs
from nondet_probe.probe.timing import wall_seconds

__all__ = ["ON_GPU", "CpuMeter", "CudaMeter", "Meter", "meter_of"]

ON_GPU = 0
"""The thread count of what runs on a GPU."""

_SAMPLE_SECONDS = 200e-6
"""Calls on the CPU that are shorter are made several times a sample."""
_MOST_CALLS = 1000
_LEAST_FLUSHED = 64 << 20
"""Bytes; for devices that do not tell the size of their second-level cache."""


class Meter(Protocol):
    """device: where the inputs have to be. name: for people, such as "cuda:0 (NVIDIA H200)"."""

    device: torch.device
    name: str

    def set_up(self, threads: int) -> AbstractContextManager[object]:
        """What holds while a setting with so many threads is measured."""

    def seconds(self, call: Callable[[], object]) -> float:
        """How long one call takes."""

    def calls_a_sample(self, seconds: float) -> int:
        """How often a call of about so many seconds is made in one sample."""

    def stream(self, inputs: Inputs, threads: int) -> tuple[Callable[[], Inputs], int]:
        """The read stream: a call that does nothing but move the inputs, and the bytes that it
        moves."""

    def extra_bytes(self, call: Callable[[], int]) -> int | None:
        """As `memory.extra_bytes`, of this device's memory."""

    def free_bytes(self) -> int | None:
        """Of this device's memory; None where it cannot be told."""


def meter_of(device: str) -> Meter:
    """For "cpu", "cuda" or "cuda:1". UsageError for what is no such device, or none here."""
    if device == "cpu":
        return CpuMeter()
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdecimal() or device == "cuda"):
        raise UsageError(f"device {device!r}: taken are cpu, cuda and cuda:0, cuda:1, ...")
    reason = kernels.why_not() if torch.cuda.is_available() else "torch sees no CUDA device"
    if reason is not None:
        raise UsageError(f"device {device!r} cannot be measured: {reason}")
    count = torch.cuda.device_count()
    index = int(number or torch.cuda.current_device())
    if index >= count:
        raise UsageError(f"device {device!r}: there are {count} CUDA devices, the first is cuda:0")
    return CudaMeter(torch.device("cuda", index))


class CpuMeter:
    """By the clock on the wall; the read stream is `csrc/stream_isa.cpp` on as many threads."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.name = "cpu"

    def set_up(self, threads: int) -> AbstractContextManager[object]:
        return thread_count(threads)

    def seconds(self, call: Callable[[], object]) -> float:
        return wall_seconds(call)

    def calls_a_sample(self, seconds: float) -> int:
        return min(_MOST_CALLS, math.ceil(_SAMPLE_SECONDS / max(seconds, 1e-9)))

    def stream(self, inputs: Inputs, threads: int) -> tuple[Callable[[], Inputs], int]:
        """It reads the inputs, so that it finds them in the cache, or not, as the others do."""

        def read_inputs() -> Inputs:
            for tensor in inputs:
                via_c.read_stream(tensor, threads)
            return ()

        return read_inputs, sum(tensor.nbytes for tensor in inputs)

    def extra_bytes(self, call: Callable[[], int]) -> int | None:
        return memory.extra_bytes(call)

    def free_bytes(self) -> int | None:
        return memory.free_bytes()


class CudaMeter:
    """By events on the device's current stream, each call with a cold second-level cache.

    Before a call a buffer of four times the cache is read: what the call needs comes from memory,
    whoever ran before, and no line is left to be written back, as a buffer that is overwritten
    would leave them. That takes the device longer than Python takes to launch most calls, so that
    these do not wait for Python; a call that waits for the device itself (where indices are
    checked) pays for that. The read stream is a copy on the device, which counts twice the bytes of
    the inputs: read and written.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.name = f"{device} ({torch.cuda.get_device_name(device)})"
        properties = torch.cuda.get_device_properties(device)
        cache = max(getattr(properties, "L2_cache_size", 0), _LEAST_FLUSHED)
        self._buffer = torch.zeros(cache, dtype=torch.float32, device=device)

    @contextlib.contextmanager
    def set_up(self, threads: int) -> Iterator[None]:
        if threads != ON_GPU:
            raise UsageError(f"threads {threads}: they are the CPU's, a GPU has {ON_GPU} of them")
        with torch.cuda.device(self.device):
            yield
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object]) -> float:
        start, end = self._event(), self._event()
        self._buffer.sum()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    @staticmethod
    def _event() -> torch.cuda.Event:
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def calls_a_sample(self, seconds: float) -> int:
        return 1  # a second one would find the inputs in the cache

    def stream(self, inputs: Inputs, threads: int) -> tuple[Callable[[], Inputs], int]:
        copies = [torch.empty_like(tensor) for tensor in inputs]

        def copy() -> Inputs:
            for target, tensor in zip(copies, inputs, strict=True):
                target.copy_(tensor)
            return ()

        return copy, 2 * sum(tensor.nbytes for tensor in inputs)

    def extra_bytes(self, call: Callable[[], int]) -> int | None:
        """Of torch's allocator, which rounds up to 512 bytes."""
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        result = call()
        return max(0, torch.cuda.max_memory_allocated(self.device) - before - result)

    def free_bytes(self) -> int | None:
        free: int = torch.cuda.mem_get_info(self.device)[0]
        return free
