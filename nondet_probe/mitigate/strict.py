"""MKL's strict mode: products whose bits do not depend on the threads, where it is at work.

It acts only when it is set before the process's first product, cannot be undone, and is for Intel's
processors: elsewhere MKL takes the setting and some products vary all the same (seen on AMD's). So
it is tried, not believed.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

from nondet_probe.bits import bit_equal
from nondet_probe.env import preserved_rng, thread_count

__all__ = ["VARIABLE", "strict_products", "strict_setting"]

VARIABLE = "MKL_CBWR"

# (m, k, n) of products seen to vary, without the mode and, on some processors, with it.
_PRODUCTS = (
    (7, 3000, 513), (33, 20_001, 17), (300, 20_000, 30), (60, 275, 106), (593, 150, 133),
    (3, 140, 212), (477, 107, 72), (40, 630, 42), (8, 7052, 30), (4, 6, 858), (257, 1536, 259),
)  # fmt: skip


def strict_setting() -> str | None:
    """The value of MKL_CBWR for this processor; None where MKL has no strict mode for it."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "AVX512,STRICT"
    return "AVX2,STRICT" if "avx2" in flags else None


def strict_products() -> bool:
    """Whether the strict mode was asked for by MKL_CBWR and products do not vary now."""
    return "STRICT" in os.environ.get(VARIABLE, "").upper() and _steady()


@cache
def _steady() -> bool:
    counts = sorted({1, 2, 3, 4, torch.get_num_threads()})
    with preserved_rng(), torch.no_grad():
        for m, k, n in _PRODUCTS:
            for dtype in (torch.float32, torch.float64):
                for transposed in (False, True):
                    a = torch.rand(m, k, dtype=dtype) - 0.5
                    b = torch.rand(*((n, k) if transposed else (k, n)), dtype=dtype) - 0.5
                    results = []
                    for threads in counts:
                        with thread_count(threads):
                            results.append(a @ (b.T if transposed else b))
                    if not all(bit_equal(results[0], other) for other in results[1:]):
                        return False
    return True
