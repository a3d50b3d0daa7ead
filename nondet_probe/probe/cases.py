"""How each op of the registry is put to the test: inputs of a size, its call, torch's counterpart.

One case an op; `tests/probe/test_cases.py` fails for an op that has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nondet_probe import ops

__all__ = ["CASES", "Case", "Result", "bytes_moved", "tensors"]

Inputs = tuple[Tensor, ...]
Result = Tensor | tuple[Tensor, ...]

_NUMPY = {torch.float64: np.float64}
_SEED = 20


def normal(shape: int | tuple[int, ...], dtype: torch.dtype, stream: int = 0) -> Tensor:
    """Standard normal numbers, the same on every machine and thread count (torch.randn's are not).

    Drawn in float64 for float64, else in float32 and rounded. stream: tells the inputs of one case
    apart.
    """
    draw = np.random.default_rng((_SEED, stream))
    values = draw.standard_normal(shape, dtype=_NUMPY.get(dtype, np.float32))
    return torch.from_numpy(np.asarray(values)).to(dtype)


def tensors(result: Result) -> Inputs:
    """What an op gave, as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _bytes(several: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in several)


def bytes_moved(inputs: Inputs, result: Inputs) -> int:
    """Every input read once, every result written once."""
    return _bytes(inputs) + _bytes(result)


@dataclass(frozen=True)
class Case:
    """One op to be measured.

    shape: what is measured with n elements, in words, for people.
    torch_name: torch's counterpart, as its users write it.
    make: inputs for n elements of a dtype, the same each time; at least one element.
    ours: the op on such inputs in a variant: ours(variant, *inputs).
    torch: the counterpart on the same inputs; it gives what `ours` gives.
    moved: bytes that have to be read and written, from inputs and results.
    most: the largest n to be measured of variants that are too slow for more.
    """

    shape: str
    torch_name: str
    make: Callable[[int, torch.dtype], Inputs]
    ours: Callable[..., Result]
    torch: Callable[..., Result]
    moved: Callable[[Inputs, Inputs], int] = bytes_moved
    most: Mapping[str, int] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "sum": Case(
        shape="all n elements of a contiguous tensor",
        torch_name="torch.sum(x)",
        make=lambda n, dtype: (normal(n, dtype),),
        ours=lambda variant, x: ops.sum(x, variant=variant),
        torch=torch.sum,
    ),
}
"""By the op's name in the registry."""
