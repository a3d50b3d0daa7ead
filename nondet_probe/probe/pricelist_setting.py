"""One setting of the price list, an op at one size, dtype and thread count, by all providers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from nondet_probe.bits import via_c
from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.env import deterministic_algorithms
from nondet_probe.ops import Guarantee, Variant, variants
from nondet_probe.probe.case_inputs import Inputs
from nondet_probe.probe.cases import Case
from nondet_probe.probe.memory import extra_bytes
from nondet_probe.probe.pricelist_outcome import Measure, Outcomes
from nondet_probe.probe.timing import interleave, rates, ratios, repeated
from nondet_probe.records import prices
from nondet_probe.records.figures import Row, Spread

__all__ = ["Measured", "Setting", "measure"]

_SAMPLE_SECONDS = 200e-6
"""Calls that are shorter are made several times a sample."""
_MOST_CALLS = 1000

_UNITS = {
    prices.TIME: "s",
    prices.RATE: "GB/s",
    prices.MEMORY: "bytes",
    prices.DISTINCT: "count",
    prices.ERROR: "ulp",
}


@dataclass(frozen=True)
class Setting:
    """threads: torch's own count, to be set while it is measured. repeats: of every call."""

    case: Case
    inputs: Inputs
    n: int
    dtype: torch.dtype
    threads: int
    repeats: int


@dataclass
class Measured:
    """rows: of all providers; firsts: the digest of each one's first result."""

    rows: list[Row] = field(default_factory=list)
    firsts: dict[str, str] = field(default_factory=dict)


@dataclass
class _Provider:
    """Something that can be called for this setting, or the reason why not."""

    name: str
    call: Callable[[], Inputs]
    under: Callable[[], AbstractContextManager[object]] = nullcontext
    variant: Variant | None = None
    why_not: str = ""
    seconds: float = 0.0
    moved: int = 0

    def result(self) -> Inputs:
        with self.under():
            return self.call()

    def try_out(self, setting: Setting) -> None:
        """The first two calls: what they move, or how they fail; and about how long one takes."""
        try:
            self.moved = setting.case.moved(setting.inputs, self.result())
            start = time.perf_counter()
            self.result()
            self.seconds = time.perf_counter() - start
        except Exception as error:  # whatever it is, it is this provider's answer
            line = str(error).strip().partition("\n")[0]
            self.why_not = f"raises {type(error).__name__}: {line[:200]}"


def measure(setting: Setting, measures: Mapping[str, Measure]) -> Measured:
    """All rows of one setting. The caller has set torch's threads and switches."""
    every = list(_providers(setting))
    for provider in every:
        if not provider.why_not:
            provider.try_out(setting)
    able = [provider for provider in every if not provider.why_not]
    found = Measured()
    for provider in every:
        if provider.why_not:
            found.rows.append(_row(setting, provider, prices.TIME, None, provider.why_not))
    if not able:
        return found
    moved = able[0].moved
    times = _times(able, setting)
    read = sum(tensor.nbytes for tensor in setting.inputs)
    # The time in which the stream would have read what the op has to read and write.
    stream = [value * moved / read for value in times[prices.STREAM]]
    found.rows.append(_stream_row(setting, rates(stream, moved / 1e9)))
    exact = next((p.result() for p in able if p.variant is not None and p.name == "exact"), None)
    for provider in able:
        outcomes = Outcomes(provider.result(), exact, measures)
        for _ in range(setting.repeats - 1):
            outcomes.see(provider.result())
        found.firsts[provider.name] = outcomes.first
        seconds = times[provider.name]
        figures: list[tuple[str, Spread | None, str]] = [
            (prices.TIME, Spread.of(seconds), ""),
            (prices.RATE, rates(seconds, moved / 1e9), ""),
            (prices.SHARE, ratios(stream, seconds), ""),
        ]
        for metric, other in (
            (prices.TO_TORCH, prices.TORCH),
            (prices.TO_TORCH_DETERMINISTIC, prices.TORCH_DETERMINISTIC),
        ):
            if provider.name != other:
                figures.append(_ratio(metric, times.get(other), seconds, every, other))
        figures.append(_memory(provider))
        figures += _outcome(outcomes, setting.repeats, exact is not None)
        found.rows += [_row(setting, provider, *figure) for figure in figures]
    return found


def _providers(setting: Setting) -> Iterator[_Provider]:
    case, inputs = setting.case, setting.inputs
    yield _Provider(prices.TORCH, lambda: case.torch(inputs))
    yield _Provider(
        prices.TORCH_DETERMINISTIC, lambda: case.torch(inputs), deterministic_algorithms
    )
    for variant in variants(case.op):
        provider = _Provider(
            variant.name,
            lambda name=variant.name: case.ours(name, inputs),  # type: ignore[misc]
            variant=variant,
        )
        most = case.most.get(variant.name)
        if setting.dtype not in variant.dtypes:
            names = ", ".join(dtype_name(dtype) for dtype in variant.dtypes)
            provider.why_not = f"takes {names}"
        elif most is not None and setting.n > most:
            provider.why_not = f"measured up to n = {most} only, since it is slow"
        yield provider


def _times(able: list[_Provider], setting: Setting) -> dict[str, list[float]]:
    """Seconds of one call in every round, of all providers and of the read stream.

    That one reads the inputs, so that it finds them in the cache, or not, as the others do.
    """

    def read_inputs() -> Inputs:
        for tensor in setting.inputs:
            via_c.read_stream(tensor, setting.threads)
        return ()

    read = _Provider(prices.STREAM, read_inputs)
    start = time.perf_counter()
    read.call()
    read.seconds = time.perf_counter() - start
    every = [*able, read]
    counts = {
        p.name: min(_MOST_CALLS, math.ceil(_SAMPLE_SECONDS / max(p.seconds, 1e-9))) for p in every
    }
    sampled = interleave(
        {p.name: repeated(p.call, counts[p.name]) for p in every},
        setting.repeats,
        under={p.name: p.under for p in every},
    )
    return {name: [value / counts[name] for value in values] for name, values in sampled.items()}


def _ratio(
    metric: str,
    others: list[float] | None,
    seconds: list[float],
    every: list[_Provider],
    other: str,
) -> tuple[str, Spread | None, str]:
    if others is not None:
        return metric, ratios(others, seconds), ""
    return metric, None, next(p.why_not for p in every if p.name == other)


def _memory(provider: _Provider) -> tuple[str, Spread | None, str]:
    used = extra_bytes(lambda: sum(tensor.nbytes for tensor in provider.result()))
    text = provider.variant.extra_memory if provider.variant is not None else ""
    return prices.MEMORY, None if used is None else Spread.single(used, 1), text


def _outcome(
    outcomes: Outcomes, repeats: int, has_exact: bool
) -> Iterator[tuple[str, Spread | None, str]]:
    yield prices.DISTINCT, Spread.single(outcomes.distinct, repeats), ""
    if outcomes.max_ulp is None:
        why = "no ulps in this dtype" if has_exact else "no exact result to compare with"
        yield prices.ERROR, None, why
    else:
        yield prices.ERROR, Spread.single(outcomes.max_ulp, repeats), ""
    for name, value in outcomes.measured.items():
        yield name, Spread.single(value, repeats), ""


def _row(
    setting: Setting, provider: _Provider, metric: str, spread: Spread | None, note: str
) -> Row:
    guarantee: Guarantee | None = provider.variant.guarantee if provider.variant else None
    return Row(
        setting.case.name,
        provider.name,
        dtype_name(setting.dtype),
        setting.n,
        setting.threads,
        metric,
        _UNITS.get(metric, "x" if metric.startswith(("share", "ratio")) else "1"),
        spread,
        "" if guarantee is None else str(guarantee),
        note,
    )


def _stream_row(setting: Setting, spread: Spread) -> Row:
    return _row(setting, _Provider(prices.STREAM, lambda: ()), prices.RATE, spread, "")
