"""The switches that decide whether training is deterministic: read them, set them for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "VARIABLES",
    "deterministic_algorithms",
    "environment_at_start",
    "read_switches",
    "thread_count",
]

VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_LAUNCH_BLOCKING",
    "FLASH_ATTENTION_DETERMINISTIC",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NONDET_PROBE_ISA",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "PYTHONHASHSEED",
)
"""Variables that change the bits or the determinism of a run; most are read once, at start."""


def read_switches() -> dict[str, Any]:
    """The switches as found, by the name of what sets them."""
    return {
        "torch.use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "torch.utils.deterministic.fill_uninitialized_memory": _fill(),
        "torch.get_num_threads": torch.get_num_threads(),
        "torch.get_num_interop_threads": torch.get_num_interop_threads(),
        "torch.get_default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "torch.get_float32_matmul_precision": torch.get_float32_matmul_precision(),
        "torch.backends.mkldnn.enabled": torch.backends.mkldnn.enabled,
        "torch.backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def environment_at_start() -> dict[str, str]:
    """VARIABLES as they were when this process began, where the system tells; else as they are."""
    try:
        pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return {name: os.environ[name] for name in VARIABLES if name in os.environ}
    found = dict(os.fsdecode(pair).partition("=")[::2] for pair in pairs if pair)
    return {name: found[name] for name in VARIABLES if name in found}


# torch puts this property on its module at run time, where a type checker cannot see it.
def _fill() -> bool:
    return bool(getattr(torch.utils.deterministic, "fill_uninitialized_memory"))  # noqa: B009


def _set_fill(value: bool) -> None:
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", value)  # noqa: B010


@contextmanager
def deterministic_algorithms(
    enabled: bool = True, *, warn_only: bool = False, fill: bool | None = None
) -> Iterator[None]:
    """`torch.use_deterministic_algorithms(enabled)` for the body.

    fill: `torch.utils.deterministic.fill_uninitialized_memory`; None leaves it as it is.
    """
    was_enabled = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    was_fill = _fill()
    try:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        if fill is not None:
            _set_fill(fill)
        yield
    finally:
        _set_fill(was_fill)
        torch.use_deterministic_algorithms(was_enabled, warn_only=was_warn_only)


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """`torch.set_num_threads(threads)` for the body; None changes nothing."""
    if threads is None:
        yield
        return
    if threads < 1:
        raise ValueError(f"threads={threads}: at least 1")
    was = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(was)
