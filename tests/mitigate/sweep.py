"""Which overloads of torch change their bits with the number of threads: regenerates the table.

    python tests/mitigate/sweep.py nondet_probe/mitigate/thread_sweep.json [--seconds 1800]

Runs the cases of sweep_cases.py under a dispatch mode, which executes every overload that arrives
there again on 1, 2, 3 and 4 threads and compares the bits. A result for a version of torch is added
to those of other versions in the file. Takes some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sweep_cases import TOO_LARGE, cases
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nondet_probe.bits import bit_equal

__all__ = ["Compare", "lines"]

THREADS = (1, 2, 3, 4)
# torch starts threads from 32768 elements up, for most kernels.
LARGE = 1 << 15
MEMORY = 5 << 30
# Elements that no vector loop takes, and how many such pieces are tried.
PIECE, PIECES = 15, 400
SKIPPED = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted",
    "resize_", "set_", "_local_scalar_dense", "item", "rand_like",
}  # fmt: skip
Results = list[Tensor]


class _UnmeasuredError(Exception):
    """Why nothing can be said of a call."""


class Compare(TorchDispatchMode):
    """Executes every overload on each thread count.

    found: overload to [calls, of them large, varied on float32 and float64, varied on narrower
        floats, varied on complex operands]; only calls that were compared in full.
    not_measured: overload to {why: calls}. Where the why begins with "ends", threads were compared
        and the ends of vectors were not; a call of an elementwise overload is then not in `found`.
    examples: overload to the operands of one that varied.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.found: dict[str, list[int]] = {}
        self.not_measured: dict[str, dict[str, int]] = {}
        self.examples: dict[str, str] = {}
        self.seen: set[Any] = set()
        self.deadline = deadline

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if str(func).split(".")[1] in SKIPPED or func.is_view:
            return func(*args, **kwargs)
        operands = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        signature = (
            str(func),
            *((x.shape, x.layout, x.dtype) for x in operands),
            *(x.stride() for x in operands if x.layout is torch.strided),
            repr(pytree.tree_map_only(Tensor, lambda x: None, (args, kwargs))),
        )
        if signature in self.seen:
            return func(*args, **kwargs)
        self.seen.add(signature)
        state = torch.get_rng_state()
        try:
            self._measure(func, args, kwargs, operands)
        except _UnmeasuredError as why:
            self._leave_out(str(func), str(why))
        finally:
            # Before the operands change: an overload that writes to them is executed on copies.
            torch.set_num_threads(THREADS[0])
            torch.set_rng_state(state)
        return func(*args, **kwargs)

    def _leave_out(self, name: str, why: str) -> None:
        reasons = self.not_measured.setdefault(name, {})
        reasons[why] = reasons.get(why, 0) + 1

    def _measure(self, func: Any, args: Any, kwargs: Any, operands: Results) -> None:
        name = str(func)
        if time.monotonic() > self.deadline:
            raise _UnmeasuredError("out of time")
        if not all(map(_dense, operands)):
            raise _UnmeasuredError("operands not dense")
        if any(x.numel() >= TOO_LARGE for x in operands):
            raise _UnmeasuredError(f"operands of {TOO_LARGE} elements and more")
        results = self._on_each_count(func, args, kwargs)
        try:
            varied = any(not _same(results[0], other) for other in results[1:])
        except TypeError:
            raise _UnmeasuredError("no memory to compare") from None
        if not varied:
            try:
                varied = _ends_differ(func, args, kwargs, results[0])
            except _UnmeasuredError as why:
                self._leave_out(name, str(why))
                if torch.Tag.pointwise in func.tags:
                    return
        row = self.found.setdefault(name, [0, 0, 0, 0, 0])
        row[0] += 1
        row[1] += max((x.numel() for x in (*operands, *results[0])), default=0) >= LARGE
        if varied:
            narrow = any(x.dtype in (torch.bfloat16, torch.float16) for x in operands)
            row[4 if any(x.is_complex() for x in operands) else 3 if narrow else 2] += 1
            self.examples.setdefault(
                name, ", ".join(f"{str(x.dtype)[6:]}{list(x.shape)}" for x in operands)
            )

    @staticmethod
    def _on_each_count(func: Any, args: Any, kwargs: Any) -> list[Results]:
        """What the call returns and what it makes of its operands, for each thread count."""
        state, found = torch.get_rng_state(), []
        for threads in THREADS:
            torch.set_num_threads(threads)
            torch.set_rng_state(state)
            copies = pytree.tree_map_only(Tensor, _copy, (args, kwargs))
            try:
                output = func(*copies[0], **copies[1])
            except Exception as error:
                raise _UnmeasuredError(f"{threads} threads: {type(error).__name__}") from None
            leaves = pytree.tree_leaves((output, copies))
            found.append([x for x in leaves if isinstance(x, Tensor)])
            if not all(map(_dense, found[-1])):
                raise _UnmeasuredError("results not dense")
            if any(x.numel() >= 4 * TOO_LARGE for x in found[-1]):
                raise _UnmeasuredError(f"results of {4 * TOO_LARGE} elements and more")
        return found


def _same(one: Results, other: Results) -> bool:
    return len(one) == len(other) and all(map(bit_equal, one, other))


def _ends_differ(func: Any, args: Any, kwargs: Any, results: Results) -> bool:
    """Whether an elementwise kernel gives other bits in its vector loop than at its end.

    A thread's share ends with a few elements beside the vectors, too few to count on seeing a
    difference that one value in a thousand makes. So pieces that are nothing but such an end.
    """
    tagged = torch.Tag.pointwise in func.tags
    whole = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim()]
    schema = func._schema.returns
    single = len(schema) == 1 and str(schema[0].type) == "Tensor" and bool(results)
    if not single or not whole or torch.Tag.nondeterministic_seeded in func.tags:
        return False
    shape = results[0].shape
    if results[0].numel() < PIECES:
        return False
    if not tagged and any(x.shape != shape for x in whole):
        return False
    torch.set_num_threads(THREADS[0])
    size = min(results[0].numel(), PIECES * PIECE)
    first = torch.unravel_index(torch.arange(size), shape)

    def start(x: Tensor) -> Tensor:
        return x.expand(shape)[first] if x.dim() else x

    def part(low: int, high: int) -> Tensor:
        """Of elements that count from `low` to `high` in each operand, in memory of their own."""
        given = pytree.tree_map_only(
            Tensor, lambda x: x[low:high].clone() if x.dim() else x.clone(), starts
        )
        output: Tensor = func(*given[0], **given[1])
        return output

    try:
        starts = pytree.tree_map_only(Tensor, start, (args, kwargs))
        together = part(0, size)
        pieces = torch.cat([part(low, min(low + PIECE, size)) for low in range(0, size, PIECE)])
        same = bit_equal(pieces.to(together.dtype), together)
    except Exception as error:
        raise _UnmeasuredError(f"ends: {type(error).__name__}") from None
    if not (same or tagged):
        # A function of the element alone comes out alike, whatever stands beside it; whatever else
        # this is, it has no ends.
        if pieces.is_complex() or pieces.shape != together.shape:
            return False
        close = torch.isclose(together.double(), pieces.double(), 0.02, 1e-6, equal_nan=True)
        if not close.all():
            return False
    return not same


def _dense(x: Tensor) -> bool:
    return x.layout is torch.strided and x.is_cpu and not x.is_quantized


def _copy(x: Tensor) -> Tensor:
    """With the same strides: they decide which kernel runs."""
    if not x.numel():
        return x.clone()
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    memory = torch.empty(span, dtype=x.dtype)
    memory.copy_(x.as_strided((span,), (1,)))
    return memory.as_strided(x.shape, x.stride())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("table", type=Path)
    options.add_argument("--seconds", type=float, default=1800)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    start = time.monotonic()
    mode = Compare(start + given.seconds)
    torch.set_num_threads(THREADS[0])
    # An outsize sample then fails alone.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    failed: dict[str, dict[str, int]] = {}
    for name, case in cases():
        if time.monotonic() > mode.deadline:
            print(f"stopped at {name}: out of time", file=sys.stderr)
            failed.setdefault(name, {})["out of time, with all after it"] = 1
            break
        torch.manual_seed(0)
        began = time.monotonic()
        print(name, flush=True)
        try:
            with mode:
                case()
        except Exception as error:
            reasons = failed.setdefault(name, {})
            reasons[type(error).__name__] = reasons.get(type(error).__name__, 0) + 1
            print(f"{name}: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
        if time.monotonic() - began > 20:
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table = json.loads(given.table.read_text()) if given.table.exists() else {}
    table[torch.__version__.split("+")[0]] = {
        "threads": THREADS,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "overloads": dict(sorted(mode.found.items())),
        "not_measured": dict(sorted(mode.not_measured.items())),
        "cases_failed": dict(sorted(failed.items())),
        "examples": dict(sorted(mode.examples.items())),
    }
    given.table.write_text(lines(table))
    varied = sorted(name for name, row in mode.found.items() if any(row[2:]))
    print(f"{len(mode.found)} overloads, {len(varied)} varied, {len(failed)} cases failed")
    print("\n".join(varied))


def lines(table: dict[str, dict[str, Any]]) -> str:
    """As JSON, a line for each overload, so that a change can be read."""
    versions = []
    for version, fields in table.items():
        parts = []
        for field, value in fields.items():
            text = json.dumps(value)
            if isinstance(value, dict) and value:
                rows = (f"{json.dumps(key)}: {json.dumps(row)}" for key, row in value.items())
                text = "{\n" + ",\n".join(rows) + "\n}"
            parts.append(f"{json.dumps(field)}: {text}")
        versions.append(f"{json.dumps(version)}: {{\n" + ",\n".join(parts) + "\n}")
    return "{\n" + ",\n".join(versions) + "\n}\n"


if __name__ == "__main__":
    main()
