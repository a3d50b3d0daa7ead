"""What tests of ops with many results share: the bound of one result, modes of the processor,
torch's checks of an operator."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import torch
from generators import bits_of
from torch import Tensor

from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits

__all__ = [
    "changed_modes",
    "check_operator",
    "distinct",
    "indices",
    "rounding_errors",
    "scatter_bound",
    "within",
]


def rounding_errors(depth: int, addends: Tensor) -> Fraction:
    """d u/(1 - d u) sum|x|: the error of `depth` additions on the way of every addend."""
    relative = depth * Fraction(2) ** (-53 if addends.dtype is torch.float64 else -24)
    magnitudes = exact_sum(addends.abs())
    assert isinstance(magnitudes, Fraction)
    return relative / (1 - relative) * magnitudes


def _place(bits: int, dtype: torch.dtype) -> int:
    """Bit patterns in the order of the numbers."""
    sign = FORMATS[dtype].sign
    return -(bits & ~sign) if bits & sign else bits


def within(result: Tensor, addends: Tensor, bound: Fraction) -> bool:
    """Whether result, one element, is a number within `bound` of the exact sum, rounded once."""
    exact = exact_sum(addends)
    assert isinstance(exact, Fraction)
    low, high = (round_to_bits(exact + error, result.dtype) for error in (-bound, bound))
    bits = bits_of(result)[0]
    return _place(low, result.dtype) <= _place(bits, result.dtype) <= _place(high, result.dtype)


def distinct(compute: Callable[[], Tensor], enough: int, most: int) -> int:
    """How many different results at most `most` calls give; stops at `enough`."""
    seen = set()
    for _ in range(most):
        seen.add(tuple(bits_of(compute())))
        if len(seen) >= enough:
            break
    return len(seen)


@contextmanager
def _rounding(mode: int) -> Iterator[None]:
    libm = ctypes.CDLL(None)
    libm.fesetround(mode)
    try:
        yield
    finally:
        libm.fesetround(0)


@contextmanager
def _flushing() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def changed_modes(compute: Callable[[], list[int]]) -> dict[str, list[int]]:
    """What compute() gives with subnormals flushed and with other roundings; for x86."""
    found = {}
    with _flushing():
        found["flushing"] = compute()
    for name, mode in (("down", 0x400), ("up", 0x800), ("to zero", 0xC00)):
        with _rounding(mode):
            found[name] = compute()
    return found


def check_operator(op: str, arguments: tuple[object, ...]) -> None:
    """torch.library.opcheck of nondet_probe::<op>."""
    with warnings.catch_warnings():
        # torch 2.14's own checker reads .grad of tensors that are no leaves, and warns of itself.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        torch.library.opcheck(getattr(torch.ops.nondet_probe, op).default, arguments)


def indices(n: int, bins: int) -> dict[str, Tensor]:
    """n numbers below `bins` in the ways that are hard on one kernel or another."""
    rng = np.random.default_rng(n)
    zipf = np.minimum(rng.zipf(1.3, n) - 1, bins - 1)
    patterns = {
        "all equal": np.full(n, bins // 2),
        "in turn": np.arange(n) % bins,
        "zipf": zipf,
        "sorted": np.sort(zipf),
        "reverse": np.sort(zipf)[::-1].copy(),
        "uniform": rng.integers(0, bins, n),
        "both ends": rng.integers(0, 2, n) * (bins - 1),
    }
    return {name: torch.from_numpy(pattern.astype(np.int64)) for name, pattern in patterns.items()}


def scatter_bound(variant: str, addends: Tensor, everything: Tensor) -> Fraction:
    """registry.Variant.error_bound of sums of weights in bins: addends are those of one bin."""
    n = addends.numel()
    if variant == "exact":
        return Fraction(0)
    if variant == "fixed_point":
        most = Fraction(everything.abs().max().item())
        return n * (everything.numel() + 1) * most * Fraction(2) ** -61
    return rounding_errors(n, addends)
