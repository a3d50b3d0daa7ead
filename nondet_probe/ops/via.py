"""Which kernels compute with a tensor: those for where it is."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from nondet_probe.ops import via_c

__all__ = ["via"]

_on_cpu: Any = via_c


def via(x: Tensor) -> Any:
    """`via_c` for a tensor on cpu, else `via_cuda`, which is imported then; both have the same
    functions, as far as there are kernels."""
    if x.is_cpu:
        return _on_cpu
    return importlib.import_module("nondet_probe.ops.via_cuda")
