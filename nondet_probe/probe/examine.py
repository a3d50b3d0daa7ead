"""Why does an op call give other bits? Execute it again on its inputs, and say what that proves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe.bits import ULP_MAX, bit_equal, compare
from nondet_probe.env.rng import preserved_rng
from nondet_probe.env.switches import thread_count
from nondet_probe.probe.fixes import fixes_of
from nondet_probe.probe.replay import Call, NotComparableError, difference, plain
from nondet_probe.records.difference import Cause

__all__ = ["EXECUTIONS", "examine"]

EXECUTIONS = 20

# What races in ops whose kernels are known (ATen/native/cpu/IndexKernel.cpp,
# TensorAdvancedIndexing.cpp in torch 2.11 to 2.14). Of others it is said that their threads race.
_MECHANISMS = {
    f"aten.{name}": "parallel float atomics"
    for name in (
        "index_put_.default",
        "index_put.default",
        "_index_put_impl_.default",
        "put_.default",
        "put.default",
    )
}


def examine(call: Call, phase: str, threads: Sequence[int] = ()) -> Cause:
    """Execute `call` EXECUTIONS times, at the present number of threads, at one, and at `threads`
    (those of the runs that differed), and try every known fix.

    phase: "forward", "backward" or "optimizer", for the words of a fix. No random stream is moved,
    and nothing that the training uses is written. What an op's results do not allow is listed in
    `missing` of the Cause.
    """
    cause = Cause()
    try:
        with preserved_rng():
            first = call.again()
            _repeat(call, first, cause)
            _explain(call, first, cause, threads)
    except NotComparableError as error:
        cause.missing.append(f"its results cannot be compared: {error}")
        return cause
    except Exception as error:
        told = str(error).splitlines() or [""]
        cause.missing.append(f"executing it again failed: {type(error).__name__}: {told[0]}")
        return cause
    cause.tried = fixes_of(call, phase, EXECUTIONS)
    return cause


def _repeat(call: Call, first: Sequence[Any], cause: Cause) -> None:
    """Executions at the present number of threads, into `cause`."""
    cause.executions = EXECUTIONS
    for _ in range(EXECUTIONS - 1):
        other = call.again()
        if difference(first, other) is None:
            continue
        cause.differing += 1
        if cause.element is None:
            _locate(first, other, cause)


def _locate(one: Sequence[Any], other: Sequence[Any], cause: Cause) -> None:
    """The first element that differs, of the first result that does."""
    for a, b in zip(one, other, strict=False):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            continue
        a, b = plain(a), plain(b)
        if a.shape != b.shape or a.dtype is not b.dtype or bit_equal(a, b):
            continue
        found = compare(a, b)
        element = found.first
        assert element is not None, "some element differs"
        at = slice(element, element + 1)
        here = compare(a.reshape(-1)[at].clone(), b.reshape(-1)[at].clone()).max_ulp
        cause.element, cause.elements = element, found.elements
        cause.ulps = None if here == ULP_MAX else here
        return


def _explain(call: Call, first: Sequence[Any], cause: Cause, threads: Sequence[int]) -> None:
    """What the number of threads has to do with it, into `cause.text`."""
    now = torch.get_num_threads()
    if cause.differing:
        if now == 1:
            cause.text = "it gives other bits from execution to execution, on one thread too"
            return
        with thread_count(1):
            alone = call.again()
            stable = all(difference(alone, call.again()) is None for _ in range(EXECUTIONS - 1))
        what = _MECHANISMS.get(call.plan.name, "its threads race")
        cause.text = (
            f"{what} at two or more threads: on one thread {EXECUTIONS} executions gave one set "
            "of bits"
            if stable
            else f"it gives other bits from execution to execution, with {now} threads and with one"
        )
        return
    for count in sorted({1, *threads} - {now}):
        with thread_count(count):
            other = call.again()
        if difference(first, other) is not None:
            _locate(first, other, cause)
            cause.text = (
                f"its bits depend on the number of threads: {count} and {now} give different ones, "
                f"each the same in every execution"
            )
            return
    cause.missing.append(
        f"{EXECUTIONS} executions on the same inputs gave one set of bits, on one thread too: what "
        "made the runs differ was not there again, or is rarer"
    )
