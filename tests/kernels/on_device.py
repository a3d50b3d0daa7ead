"""The kernels in Triton as the public ops call them: the bits of the CPU where a backend claims
them, the same bits again where it claims that. Run by test_on_device.py, on a GPU, and interpreted
(TRITON_INTERPRET=1, tensors on cpu) where there is none.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import pytest
import torch
from generators import FAMILIES, family
from torch import Tensor

from nondet_probe.bits import count_different, digest
from nondet_probe.errors import UsageError
from nondet_probe.ops.backends import Offer, offers
from nondet_probe.ops.registry import Guarantee
from nondet_probe.probe.cases import CASES, Case

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy: inf, NaN, overflow

Inputs = tuple[Tensor, ...]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
SIZES = (2, 90) if INTERPRETED else (2, 1000, 100_003)
LARGE = 2000 if INTERPRETED else 1 << 24
REPEATS = 1 if INTERPRETED else 20


@dataclass(frozen=True)
class Cell:
    case: Case
    variant: str
    offer: Offer
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.case.name}-{self.variant}-{str(self.dtype).removeprefix('torch.')}"

    def there(self, inputs: Inputs) -> Inputs:
        """The results in Triton, in host memory."""
        given = tuple(one.to(DEVICE) for one in inputs)
        return tuple(one.cpu() for one in self.case.ours(self.variant, given, "triton"))


CELLS = [
    Cell(case, variant, offer, dtype)
    for op, of_op in offers("triton").items()
    for case in CASES[op]
    for variant, offer in of_op.items()
    for dtype in offer.dtypes
    # The interpreter cannot multiply and add with one rounding, nor add bfloat16 atomically; two
    # dtypes are enough to see that the tests do what they say.
    if not INTERPRETED or (dtype in (torch.float32, torch.float16) and op != "matmul")
]
EXACT = [cell for cell in CELLS if cell.dtype in cell.offer.bits_of_cpu]
REPEATABLE = [cell for cell in CELLS if cell.offer.guarantee >= Guarantee.RUN_TO_RUN]
FREE = [cell for cell in CELLS if cell.offer.guarantee is Guarantee.NONE]


@functools.cache
def hard_numbers(name: str, dtype: torch.dtype) -> Tensor:
    return torch.cat([one for one in family(name, dtype) if one.numel()])


def differences(found: Inputs, expected: Inputs) -> list[int]:
    return [count_different(a, b) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("cell", EXACT, ids=str)
def test_the_bits_of_the_cpu(cell: Cell) -> None:
    for n in SIZES:
        inputs = cell.case.make(n, cell.dtype)
        expected = cell.case.ours(cell.variant, inputs)
        assert differences(cell.there(inputs), expected) == [0] * len(expected), n


@pytest.mark.parametrize("cell", EXACT, ids=str)
def test_the_bits_of_the_cpu_of_hard_numbers(cell: Cell) -> None:
    inputs = cell.case.make(SIZES[1], cell.dtype)
    for name in ("infinities_and_nans",) if INTERPRETED else FAMILIES:
        values = hard_numbers(name, cell.dtype)
        hard = tuple(
            values[(torch.arange(one.numel()) + 7 * turn) % values.numel()].view(one.shape)
            if one.dtype is cell.dtype
            else one
            for turn, one in enumerate(inputs)
        )
        expected = cell.case.ours(cell.variant, hard)
        assert differences(cell.there(hard), expected) == [0] * len(expected), name


@pytest.mark.parametrize("cell", REPEATABLE, ids=str)
def test_a_repeatable_variant_repeats_itself(cell: Cell) -> None:
    inputs = cell.case.make(SIZES[-1], cell.dtype)
    first = cell.there(inputs)
    for _ in range(REPEATS):
        assert differences(cell.there(inputs), first) == [0] * len(first)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter has one order")
@pytest.mark.parametrize("cell", FREE, ids=str)
def test_atomic_follows_the_order_of_arrival(cell: Cell) -> None:
    if cell.dtype not in (torch.float64, torch.float32):
        return
    # The parts of a loss have 4096 rows.
    plain = cell.case.make(4 * LARGE if cell.case.op == "cross_entropy" else LARGE, cell.dtype)
    inputs = tuple(
        (one * (one * 2).exp() if one.is_floating_point() else one).to(DEVICE) for one in plain
    )
    seen = set()
    for _ in range(100):
        results = cell.case.ours(cell.variant, inputs, "triton")
        seen.add(" ".join(str(digest(one.cpu())) for one in results))
        if len(seen) > 1:
            return
    pytest.fail(f"100 results of {cell} had the same bits")


@pytest.mark.skipif(INTERPRETED, reason="the interpreter has no graphs")
@pytest.mark.parametrize("cell", REPEATABLE, ids=str)
def test_graphs(cell: Cell) -> None:
    inputs = cell.case.make(SIZES[1], cell.dtype)
    expected = cell.there(inputs)
    given = tuple(torch.zeros_like(one, device=DEVICE) for one in inputs)
    cell.case.ours(cell.variant, given, "triton")  # compiles
    torch.cuda.synchronize()
    something = torch.zeros(1, device=DEVICE)
    graph = torch.cuda.CUDAGraph()
    if cell.case.op in ("index_add", "scatter_add", "cross_entropy"):
        with torch.cuda.graph(graph):
            something.add_(1)  # torch warns of graphs without any
            with pytest.raises(UsageError, match=r"in all variants.*graph"):
                cell.case.ours(cell.variant, given, "triton")
        return
    with torch.cuda.graph(graph):
        results = cell.case.ours(cell.variant, given, "triton")
    for one, other in zip(given, inputs, strict=True):
        one.copy_(other)
    graph.replay()
    assert differences(tuple(one.cpu() for one in results), expected) == [0] * len(expected)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter has no streams")
@pytest.mark.parametrize("cell", REPEATABLE, ids=str)
def test_work_goes_to_the_current_stream(cell: Cell) -> None:
    inputs = cell.case.make(SIZES[1], cell.dtype)
    expected = cell.there(inputs)
    there = tuple(one.to(DEVICE) for one in inputs)
    late = tuple(torch.zeros_like(one) for one in there)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(40_000_000)
        for one, other in zip(late, there, strict=True):
            one.copy_(other)
        results = cell.case.ours(cell.variant, late, "triton")
    stream.synchronize()
    assert differences(tuple(one.cpu() for one in results), expected) == [0] * len(expected)
