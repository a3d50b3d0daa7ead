"""What each variant of `sum` and `mean` promises."""

from __future__ import annotations

import torch

from nondet_probe.ops.registry import Guarantee, Variant, register

__all__ = ["SUM_DTYPES", "register_sums"]

SUM_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

_ONE_ROUNDING = "then one rounding to the dtype"
_CANCELLATION = "cancellation: the bound is relative to sum|x|, not to the result"


def register_sums(op: str, *, mean: bool) -> None:
    """Register all variants under the name `op`. n counts the elements of one result.

    mean: bounds are those of the sum; the texts say how it is divided.
    """
    divided = " The sum is divided by n in float64." if mean else ""
    quotient = " The exact quotient of this sum by n is rounded." if mean else ""
    of_n = ", divided by n" if mean else ""
    for name, guarantee, error_bound, extra_memory, worst_case, doc in (
        (
            "atomic",
            Guarantee.NONE,
            f"d u/(1 - d u) sum|x|, d = 20 + ceil(n/1024){of_n}, {_ONE_ROUNDING}",
            "none",
            "from two threads up every call may give other bits",
            "Threads add blocks of 1024 to one shared float, in the order in which they arrive."
            + divided,
        ),
        (
            "two_pass",
            Guarantee.RUN_TO_RUN,
            "d u/(1 - d u) sum|x|, d = 70 + ceil(log2(ceil(n/4096))) + ceil(log2(threads))"
            f"{of_n}, {_ONE_ROUNDING}; infinite where a partial sum overflows",
            "n/4096 floats",
            "another number of threads gives other bits",
            "One range of the elements for each thread, and a tree over their sums." + divided,
        ),
        (
            "fixed_order",
            Guarantee.LAUNCH_INVARIANT,
            f"d u/(1 - d u) sum|x|, d = 69 + ceil(log2(ceil(n/4096))){of_n}, {_ONE_ROUNDING}; "
            "infinite where a partial sum overflows",
            "n/4096 floats",
            _CANCELLATION,
            "Chunks of 4096 by 64 lanes and binary trees: an order that depends on n alone."
            + divided,
        ),
        (
            "binned",
            Guarantee.ORDER_INVARIANT,
            f"n max|x| 2^-80 (fp64) or 2^-40 (others){of_n}, {_ONE_ROUNDING}",
            "80 bytes a thread",
            "cancellation: the bound is relative to max|x|, not to the result",
            "Elements are cut on a fixed grid and the slices added as integers." + quotient,
        ),
        (
            "exact",
            Guarantee.CORRECTLY_ROUNDED,
            "half an ulp of the result, always",
            "34 KB a thread; over leading dimensions 600 bytes a column, for 2 KB of columns",
            "blocks of 16384 in fp64 that span more than about 70 binades, or hold an infinity or "
            "NaN (any dtype), are added one element at a time",
            "Error-free additions, checked, into a fixed-point number wide enough for every sum."
            + quotient,
        ),
        (
            "kahan",
            Guarantee.LAUNCH_INVARIANT,
            f"3 u sum|x|{of_n}, {_ONE_ROUNDING}; infinite where a partial sum overflows",
            "n/2048 floats",
            _CANCELLATION,
            "A baseline for accuracy: Kahan's compensated sum in 64 lanes of every chunk."
            + quotient,
        ),
        (
            "pairwise",
            Guarantee.LAUNCH_INVARIANT,
            f"d u/(1 - d u) sum|x|, d = 12 + ceil(log2(ceil(n/4096))){of_n}, {_ONE_ROUNDING}; "
            "infinite where a partial sum overflows",
            "n/4096 floats",
            _CANCELLATION,
            "A baseline for accuracy: one balanced binary tree over all elements." + divided,
        ),
    ):
        register(
            Variant(
                op=op,
                name=name,
                guarantee=guarantee,
                cross_device=False,
                batch_invariant=guarantee >= Guarantee.LAUNCH_INVARIANT,
                error_bound=error_bound,
                extra_memory=extra_memory,
                worst_case=worst_case,
                dtypes=SUM_DTYPES,
                doc=doc,
            )
        )
