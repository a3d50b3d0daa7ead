"""`sum` and `mean`: the way into `_C`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.via_c.room import room
from nondet_probe.ops.via_c.threads import at_most

__all__ = [
    "sum_all",
    "sum_over",
]


def sum_all(x: Tensor, variant: str, mean: bool, threads: int | None) -> Tensor:
    """The sum, or mean, of a contiguous CPU tensor of a dtype that the variant takes: 0-d.

    threads: at most so many are used; None is torch.get_num_threads(). UsageError when it is below
    1 and when NONDET_PROBE_ISA names an instruction set that is not available.
    """
    threads = at_most(threads)
    result = x.new_empty(())
    try:
        _C.sum(
            variant,
            mean,
            CODES[x.dtype],
            x.data_ptr(),
            x.numel(),
            threads,
            "",
            result.data_ptr(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def sum_over(
    x: Tensor,
    dims: Sequence[int],
    shape: Sequence[int],
    variant: str,
    mean: bool,
    threads: int | None,
) -> Tensor:
    """The same over the dimensions `dims` of a strided CPU tensor, to a result of this shape."""
    threads = at_most(threads)
    results = room(x, shape)
    try:
        _C.sum_over(
            variant,
            mean,
            CODES[x.dtype],
            x.data_ptr(),
            x.shape,
            x.stride(),
            dims,
            threads,
            "",
            results.data_ptr(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return results
