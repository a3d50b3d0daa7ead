"""The public ops on tensors that the emulated grid computes with: the bits of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from generators import bits_of

from nondet_probe import ops
from nondet_probe.ops import via, via_cuda
from nondet_probe.ops.registry import Guarantee
from nondet_probe.probe.cases import CASES, Case

Grid = Callable[[int, int], None]
# All but attention, which has kernels in Triton alone.
OPS = tuple(op for op in ops.ops() if op != "attention")
CELLS = [
    pytest.param(case, variant.name, dtype, id=f"{case.name}-{variant.name}-{dtype}")
    for op in OPS
    for case in CASES[op]
    for variant in ops.variants(op)
    for dtype in (torch.float64, torch.float32, torch.bfloat16)
    if variant.guarantee >= Guarantee.LAUNCH_INVARIANT
    and variant.name not in ("kahan", "pairwise")
    and dtype in variant.dtypes
]


@pytest.fixture
def as_cuda(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it, and tensors on cpu go the way of those on cuda."""
    return lambda: monkeypatch.setattr(via, "_on_cpu", via_cuda)


@pytest.mark.parametrize(("case", "variant", "dtype"), CELLS)
def test_the_bits_of_the_cpu(
    case: Case, variant: str, dtype: torch.dtype, as_cuda: Callable[[], None]
) -> None:
    inputs = case.make(500, dtype)
    expected = [bits_of(one) for one in case.ours(variant, inputs)]
    as_cuda()
    assert [bits_of(one) for one in case.ours(variant, inputs)] == expected


def test_another_device_is_refused() -> None:
    with pytest.raises(TypeError, match="sum takes tensors on cpu or cuda, got one on meta"):
        ops.sum(torch.ones(3, device="meta"))
