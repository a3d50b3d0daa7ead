"""A caller's flush-to-zero and rounding mode change no bit of a sum, and are left as found."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from generators import bits_of, normal, random_bits
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import mean
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops.rational import FORMATS

pytestmark = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="the modes are set as on x86"
)

VARIANTS = ["fixed_order", "binned", "exact", "two_pass", "kahan", "pairwise"]
LIBM = ctypes.CDLL(None)
NEAREST, DOWN, UP, ZERO = 0x000, 0x400, 0x800, 0xC00


@contextmanager
def flushing() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def rounding(mode: int) -> Iterator[None]:
    LIBM.fesetround(mode)
    try:
        yield
    finally:
        LIBM.fesetround(NEAREST)


def vectors(dtype: torch.dtype) -> list[Tensor]:
    rng = np.random.default_rng(11)
    subnormal = random_bits(2000, dtype, rng, 0, 1)
    # 10 MiB are enough for two threads, which inherit the mode of the one that starts them.
    many = subnormal.repeat((10 << 20) // subnormal.nbytes)
    return [subnormal, many, normal(20_000, dtype, 12), normal(2, dtype, 13)]


def results(dtype: torch.dtype, xs: list[Tensor]) -> list[int]:
    whole = [bits_of(sum_all(x, variant=variant, threads=2))[0] for variant in VARIANTS for x in xs]
    columns = xs[2].reshape(100, 200)
    by_column = [sum_all(columns, 0, variant=variant, threads=2) for variant in VARIANTS]
    means = [mean(columns, 0, variant=variant, threads=2) for variant in VARIANTS]
    return whole + [bits for of in (*by_column, *means) for bits in bits_of(of)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("isa", _C.available_isas())
def test_no_mode_changes_a_bit(
    isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    xs = vectors(dtype)
    expected = results(dtype, xs)
    with flushing():
        flushed = results(dtype, xs)
    assert flushed == expected
    for mode in (DOWN, UP, ZERO):
        with rounding(mode):
            rounded = results(dtype, xs)
        assert rounded == expected, hex(mode)


def test_the_modes_are_really_set() -> None:
    """What torch's own sum makes of them: the test above looks at something."""
    subnormal, tiny = torch.full((64,), 1e-310, dtype=torch.float64), torch.tensor([1.0, 1e-30])
    with flushing():
        flushed = subnormal.sum().item()
    with rounding(UP):
        rounded_up = tiny.sum().item()
    assert flushed == 0.0
    assert rounded_up > 1.0
    assert subnormal.sum().item() > 0.0
    assert tiny.sum().item() == 1.0


@pytest.mark.parametrize("variant", [*VARIANTS, "atomic"])
def test_the_mode_is_left_as_found(variant: str) -> None:
    x = torch.ones(1000)
    with rounding(UP):
        sum_all(x, variant=variant)
        after = LIBM.fegetround()
    assert after == UP
    with flushing():
        sum_all(x, variant=variant)
        flushed = (torch.tensor([1e-310], dtype=torch.float64) * 1.0).item()
    assert flushed == 0.0
