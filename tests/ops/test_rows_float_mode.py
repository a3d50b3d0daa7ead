"""A caller's flush-to-zero and rounding mode change no bit of a row-wise op, and stay as found."""

from __future__ import annotations

import platform
from collections.abc import Callable

import pytest
import torch
from generators import bits_of, normal
from test_sum_float_mode import DOWN, LIBM, NEAREST, UP, ZERO, flushing, rounding
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import cross_entropy, layer_norm, log_softmax, rms_norm, softmax

pytestmark = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="the modes are set as on x86"
)

ROWS, COLUMNS = 700, 100  # work for two threads, which inherit the mode of the one that starts them
TARGET = torch.arange(ROWS) % COLUMNS
SHAPE = (COLUMNS,)

OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "layer_norm exact": lambda x, w: layer_norm(
        x, SHAPE, w, None, 1e-40, variant="exact", threads=2
    ),
    "layer_norm": lambda x, w: layer_norm(x, SHAPE, w, threads=2),
    "rms_norm two_pass": lambda x, w: rms_norm(x, SHAPE, w, variant="two_pass", threads=2),
    "softmax": lambda x, w: softmax(x, -1, threads=2),
    "log_softmax": lambda x, w: log_softmax(x, -1, threads=2),
    "cross_entropy": lambda x, w: cross_entropy(x, TARGET, w, threads=2),
    "cross_entropy exact": lambda x, w: cross_entropy(x, TARGET, variant="exact", threads=2),
    "cross_entropy smoothed": lambda x, w: cross_entropy(
        x, TARGET, w, reduction="none", label_smoothing=0.1, threads=2
    ),
}


def results(name: str, given: list[Tensor], dy: Tensor) -> list[list[int]]:
    """The bits of the result and of the gradients. All that is not ours is done beforehand."""
    leaves = [tensor.requires_grad_(i == 0 or "norm" in name) for i, tensor in enumerate(given)]
    for leaf in leaves:
        leaf.grad = None
    y = OPS[name](*leaves)
    y.backward(dy if y.dim() == 2 else torch.ones_like(y))
    return [bits_of(y.detach()), *(bits_of(leaf.grad) for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", OPS)
def test_no_mode_changes_a_bit(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    smallest = torch.finfo(dtype).smallest_normal
    given = [normal(ROWS * COLUMNS, dtype, 1).reshape(ROWS, COLUMNS), normal(COLUMNS, dtype, 2)]
    dy = normal(ROWS * COLUMNS, dtype, 3).reshape(ROWS, COLUMNS) * smallest  # half are subnormal
    if name == "softmax":
        given[0] *= 60  # some results are subnormal
    for isa in (_C.available_isas()[0], _C.available_isas()[-1]):
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        expected = results(name, given, dy)
        with flushing():
            flushed = results(name, given, dy)
        assert flushed == expected
        for mode in (DOWN, UP, ZERO):
            with rounding(mode):
                rounded = results(name, given, dy)
            assert rounded == expected, hex(mode)


@pytest.mark.parametrize("name", OPS)
def test_the_mode_is_left_as_found(name: str) -> None:
    x, w = normal(ROWS * COLUMNS, torch.float32, 1).reshape(ROWS, COLUMNS), torch.ones(COLUMNS)
    with rounding(UP):
        OPS[name](x, w)
        after = LIBM.fegetround()
    assert after == UP
    assert LIBM.fegetround() == NEAREST
    with flushing():
        OPS[name](x, w)
        flushed = (torch.tensor([1e-310], dtype=torch.float64) * 1.0).item()
    assert flushed == 0.0
