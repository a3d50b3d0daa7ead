"""The price list: what each variant of each op costs on this machine, and what one gets for it.

Measured in turn: the variants, torch's op in its default and its deterministic mode, and what only
reads the inputs. See docs/bench.md; `meters` has what differs between devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.env import deterministic_algorithms, preserved_rng
from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.ops import ops
from nondet_probe.probe.cases import CASES
from nondet_probe.probe.meters import ON_GPU, Meter, meter_of
from nondet_probe.probe.pricelist_outcome import Measure
from nondet_probe.probe.pricelist_setting import Measured, Setting, measure
from nondet_probe.records import prices
from nondet_probe.records.figures import Row, Spread

__all__ = ["DTYPES", "Request", "price_list"]

DTYPES = {
    dtype_name(dtype): dtype
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
}
"""What can be measured, by name; a variant that does not take one says so in its row."""

_WORKING_SET = 100
"""Bytes an element, at most: inputs and three results with all that backward passes keep."""


@dataclass(frozen=True)
class Request:
    """What to measure: every combination of these. repeats: of every call, at least 2.

    device: "cpu", "cuda" or "cuda:1". threads: [`meters.ON_GPU`] unless it is "cpu".
    """

    ops: Sequence[str]
    sizes: Sequence[int]
    dtypes: Sequence[torch.dtype]
    threads: Sequence[int]
    repeats: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        for op in self.ops:
            if op not in ops():
                raise unknown_name("op", op, ops())
        if self.repeats < 2:
            raise UsageError(f"repeats={self.repeats}: at least 2, to have a spread")
        for name in ("ops", "sizes", "dtypes", "threads"):
            if not getattr(self, name):
                raise UsageError(f"{name}: nothing to measure")
        free = meter_of(self.device).free_bytes()
        for n in self.sizes:
            if n < 1:
                raise UsageError(f"size {n}: at least 1 element")
            needed = n * _WORKING_SET
            if free is not None and needed > free:
                raise UsageError(
                    f"size {n}: needs some {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB "
                    "are free"
                )
        for threads in self.threads:
            if self.device != "cpu" and threads != ON_GPU:
                raise UsageError(f"threads {threads}: they are the CPU's, not of {self.device}")
            if self.device == "cpu" and threads < 1:
                raise UsageError(f"threads {threads}: at least 1")

    def settings(self) -> int:
        """How many there are to measure, for a progress bar."""
        cases = sum(len(CASES[op]) for op in self.ops)
        return cases * len(self.sizes) * len(self.dtypes) * len(self.threads)


def price_list(
    request: Request,
    measures: Mapping[str, Measure],
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[list[Row]]:
    """Measure, and give the rows of one setting (op, size, dtype, threads) after the other.

    measures: by name, functions of (first result, another result) that are 0 where both are the
    same; of each the value largest in magnitude over the repeats becomes a row.

    Runs with torch's deterministic mode off but for the provider of that name; switches, thread
    count and random streams are put back after each setting.
    """
    done, total = 0, request.settings()
    meter = meter_of(request.device)
    cases = [case for op in request.ops for case in CASES[op]]
    for case, dtype, n in product(cases, request.dtypes, request.sizes):
        inputs = tuple(tensor.to(meter.device) for tensor in case.make(n, dtype))
        across = _AcrossThreads()
        for threads in request.threads:
            if progress is not None:
                progress(
                    f"{case.name} {dtype_name(dtype)} n={n}, {_on(meter, threads)}", done, total
                )
            setting = Setting(case, inputs, n, dtype, threads, request.repeats, meter)
            with preserved_rng(), deterministic_algorithms(False), meter.set_up(threads):
                found = measure(setting, measures)
            across.add(found)
            yield found.rows
            done += 1
        yield across.rows()
    if progress is not None:
        progress("measured", total, total)


def _on(meter: Meter, threads: int) -> str:
    return meter.name if threads == ON_GPU else f"{threads} threads"


class _AcrossThreads:
    """Whether a provider's first results are the same for all thread counts."""

    def __init__(self) -> None:
        self._digests: dict[str, list[str]] = {}
        self._last: dict[str, Row] = {}

    def add(self, found: Measured) -> None:
        for name, digest in found.firsts.items():
            self._digests.setdefault(name, []).append(digest)
        for row in found.rows:
            last = self._last.setdefault(row.provider, row)
            if row.threads > last.threads:
                self._last[row.provider] = row

    def rows(self) -> list[Row]:
        """One row a provider, at the largest thread count; none where there was only one."""
        return [
            replace(
                self._last[name],
                metric=prices.ACROSS_THREADS,
                unit="count",
                spread=Spread.single(len(set(digests)), len(digests)),
                note="",
            )
            for name, digests in self._digests.items()
            if len(digests) > 1
        ]
