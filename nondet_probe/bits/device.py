"""The module with the kernels, loaded on first use, and what a launch needs."""

from __future__ import annotations

import contextlib
import functools
from types import ModuleType

import torch
from torch import Tensor

from nondet_probe.errors import UsageError

__all__ = [
    "launch_blocks",
    "library",
    "not_captured",
    "on_device",
    "stream_of",
    "why_not",
    "workspace",
]


_BLOCKS = 0
"""Of every launch; 0 lets the kernels fill the device. No result that promises anything depends on
it, which the tests show by changing it."""


def library() -> ModuleType:
    """`nondet_probe._cuda`. UsageError when this build has none, with what to do."""
    return _load()


@functools.cache
def _load() -> ModuleType:
    try:
        from nondet_probe import _cuda
    except ImportError as error:
        raise UsageError(
            f"nondet_probe has no kernels for CUDA here ({error}); build it where nvcc is: "
            "NONDET_PROBE_CUDA=1 pip install --no-build-isolation nondet-probe, or pass x.cpu()"
        ) from None
    module: ModuleType = _cuda
    return module


def launch_blocks() -> int:
    """The size of the launches to come: 0 fills the device."""
    return _BLOCKS


def why_not() -> str | None:
    """Why the kernels cannot be used here; None when they can."""
    try:
        library()
    except UsageError as error:
        return str(error)
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def not_captured(op: str, x: Tensor) -> None:
    """UsageError while x's device captures a graph: what follows has to wait for the GPU."""
    if _captures(x):
        raise UsageError(
            f"{op}, in all variants, reads back from the GPU whether its input is in range, which "
            "cannot be captured in a graph; call it outside of the graph"
        )


def _captures(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launches inside go to the device of x."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def stream_of(x: Tensor) -> int:
    """The current stream of x's device, as an address."""
    return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0


def workspace(x: Tensor, size: int) -> Tensor:
    """`size` bytes on x's device, of torch's own allocator, so that a graph may capture them."""
    return torch.empty(size, dtype=torch.uint8, device=x.device)
