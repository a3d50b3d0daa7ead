"""What decides on a GPU whether torch's own kernels give the same bits in every run.

The switches are the process's. While routes for CUDA are in place torch's deterministic mode is on,
and warns where it would raise: such an overload goes another way, or is told in the report. The
derivatives of attention obey the mode only where it does not just warn: `strictly` is for the time
of such a call, and what would raise in it has to wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from nondet_probe.env import deterministic_algorithms

__all__ = [
    "WORKSPACE",
    "WORKSPACE_SETTING",
    "cuda_is_here",
    "deterministic_cuda",
    "not_strictly",
    "strictly",
    "switched_back",
    "workspace_is_set",
]

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACE_SETTING = ":4096:8"
_TAKEN = (WORKSPACE_SETTING, ":16:8")  # by cuBLAS as reproducible

# A strict moment, and a call that would raise in one, exclude each other.
_moment = threading.RLock()


def cuda_is_here() -> bool:
    """Whether torch sees a GPU."""
    return torch.cuda.is_available()


def workspace_is_set() -> bool:
    """Whether cuBLAS was told to keep to a workspace for each stream. It reads that before its
    first product only."""
    return os.environ.get(WORKSPACE) in _TAKEN


@contextmanager
def deterministic_cuda() -> Iterator[None]:
    """torch's deterministic mode and cuDNN's, for the body.

    A mode that is on stays as it is: who has it raise wants it to. Memory is not filled (torch's
    `fill_uninitialized_memory`): that costs a pass over every new tensor, and helps only those that
    read what nobody wrote. What a product is computed in (TF32, reduced precision) is left alone.
    """
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    was = cudnn.deterministic, cudnn.benchmark, _cudnn_attention()
    on = torch.are_deterministic_algorithms_enabled()
    mode = nullcontext() if on else deterministic_algorithms(True, warn_only=True, fill=False)
    try:
        with mode:
            cudnn.deterministic, cudnn.benchmark = True, False
            # Its derivative has no deterministic way; the others have.
            cuda.enable_cudnn_sdp(False)
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = was[:2]
        cuda.enable_cudnn_sdp(was[2])


def switched_back() -> set[str]:
    """Which of these are, inside, no longer as `deterministic_cuda` set them."""
    cudnn = torch.backends.cudnn
    found = {
        "torch.use_deterministic_algorithms": not torch.are_deterministic_algorithms_enabled(),
        "torch.backends.cudnn.deterministic": not cudnn.deterministic,
        "torch.backends.cudnn.benchmark": cudnn.benchmark,
        "torch.backends.cuda.enable_cudnn_sdp": _cudnn_attention(),
    }
    return {name for name, changed in found.items() if changed}


def _cudnn_attention() -> bool:
    return bool(torch.backends.cuda.cudnn_sdp_enabled())  # type: ignore[no-untyped-call]


@contextmanager
def strictly() -> Iterator[None]:
    """The mode that does not just warn, for the body."""
    with _moment, deterministic_algorithms(True, warn_only=False):
        yield


def not_strictly() -> AbstractContextManager[object]:
    """A context that no strict moment of another thread falls into."""
    return _moment
