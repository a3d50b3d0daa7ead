"""What the tests of several ops ask in the same way: the same bits whatever runs them, results
within a bound, a caller's floating-point mode without influence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from generators import bits_of
from test_sum_float_mode import UP, flushing, rounding
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops.rational import FORMATS, round_to_bits

__all__ = ["is_within", "opcheck", "place", "results_under_modes", "same_bits_everywhere"]


def same_bits_everywhere(
    call: Callable[[int], Tensor], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The bits of call(threads), asserted to be one thing over runs, ISAs and 1 to 8 threads."""
    expected = bits_of(call(1))
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        assert bits_of(call(1)) == expected, isa
        assert bits_of(call(3)) == expected, isa
    monkeypatch.delenv("NONDET_PROBE_ISA")
    for threads in (2, 2, 3, 4, 5, 6, 7, 8):
        assert bits_of(call(threads)) == expected, threads
    return expected


def place(bits: int, dtype: torch.dtype) -> int:
    """Bit patterns in the order of the numbers."""
    sign = FORMATS[dtype].sign
    return -(bits & ~sign) if bits & sign else bits


def is_within(bits: int, exact: Fraction, bound: Fraction, dtype: torch.dtype) -> bool:
    """Whether these are the bits of a number within `bound` of `exact`, rounded once."""
    low, high = (round_to_bits(exact + error, dtype) for error in (-bound, bound))
    return place(low, dtype) <= place(bits, dtype) <= place(high, dtype)


def results_under_modes(call: Callable[[], list[int]]) -> list[list[int]]:
    """What call() gives as the process stands, flushing subnormals, and rounding up."""
    plain = call()
    with flushing():
        flushed = call()
    with rounding(UP):
        rounded = call()
    return [plain, flushed, rounded]


def opcheck(overload: Callable[..., object], arguments: tuple[object, ...]) -> None:
    with warnings.catch_warnings():
        # torch 2.14's own checker reads .grad of tensors that are no leaves, and warns of itself.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        torch.library.opcheck(overload, arguments)
