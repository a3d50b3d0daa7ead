"""The switches that decide whether training is deterministic: read them, set them for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "deterministic_algorithms",
    "environment_at_start",
    "read_switches",
    "stored_variables",
    "thread_count",
]

# Of the environment's variables these alone are ever stored, since others may hold secrets: ours,
# torch's, CUDA's, and those of OpenMP, MKL and oneDNN.
_FAMILIES = (
    "ATEN_",
    "CUBLASLT_",
    "CUBLAS_",
    "CUDA_",
    "CUDNN_",
    "DNNL_",
    "FLASH_ATTENTION_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "NCCL_",
    "NONDET_PROBE_",
    "OMP_",
    "ONEDNN_",
    "PYTORCH_",
    "TORCHINDUCTOR_",
    "TORCH_",
)
_SINGLE = ("NVIDIA_TF32_OVERRIDE", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED")
# Where things lie changes no bits, and tells of the user's machine.
_PLACES = ("_CACHE", "_DIR", "_FILE", "_HOME", "_PATH", "_ROOT")


def read_switches() -> dict[str, Any]:
    """The switches as found, by the name of what sets them. "environment" holds the variables of
    the families that can matter, with their values; of all others nothing is read."""
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
        "environment": stored_variables(os.environ),
    }


def stored_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables of an environment that may be stored, by name: they decide about bits or
    determinism, and most are read once, at start."""
    return {
        name: environment[name]
        for name in sorted(environment)
        if (name.startswith(_FAMILIES) and not name.endswith(_PLACES)) or name in _SINGLE
    }


def environment_at_start() -> dict[str, str]:
    """`stored_variables` as this process began, where the system tells; else as they are."""
    try:
        pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return stored_variables(os.environ)
    return stored_variables(dict(os.fsdecode(pair).partition("=")[::2] for pair in pairs if pair))


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
