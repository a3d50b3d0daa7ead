"""One setting of the price list, an op at one size, dtype and thread count, by all providers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.probe.case_inputs import Inputs
from nondet_probe.probe.cases import Case
from nondet_probe.probe.meters import Meter
from nondet_probe.probe.pricelist_outcome import Measure, Outcomes
from nondet_probe.probe.providers import Provider, providers
from nondet_probe.probe.timing import interleave, rates, ratios, repeated
from nondet_probe.records import prices
from nondet_probe.records.figures import Row, Spread

__all__ = ["Measured", "Setting", "measure"]

_UNITS = {
    prices.TIME: "s",
    prices.RATE: "GB/s",
    prices.MEMORY: "bytes",
    prices.DISTINCT: "count",
    prices.ERROR: "ulp",
}


@dataclass(frozen=True)
class Setting:
    """inputs: where the meter measures. threads: torch's own count, to be set while it is measured;
    `meters.ON_GPU` elsewhere. repeats: of every call."""

    case: Case
    inputs: Inputs
    n: int
    dtype: torch.dtype
    threads: int
    repeats: int
    meter: Meter


@dataclass
class Measured:
    """rows: of all providers; firsts: the digest of each one's first result."""

    rows: list[Row] = field(default_factory=list)
    firsts: dict[str, str] = field(default_factory=dict)


def measure(setting: Setting, measures: Mapping[str, Measure]) -> Measured:
    """All rows of one setting. The caller has set torch's threads and switches."""
    case, inputs, meter = setting.case, setting.inputs, setting.meter
    every = list(providers(case, inputs, setting.n, setting.dtype, meter.device))
    for provider in every:
        if not provider.why_not:
            provider.try_out(case, inputs, meter)
    able = [provider for provider in every if not provider.why_not]
    found = Measured()
    for provider in every:
        if provider.why_not:
            found.rows.append(_row(setting, provider, prices.TIME, None, provider.why_not))
    if not able:
        return found
    moved = able[0].moved
    read, read_bytes = meter.stream(inputs, setting.threads)
    times = _times([*able, Provider(prices.STREAM, read, seconds=meter.seconds(read))], setting)
    # The time in which the stream would have moved what the op has to read and write.
    stream = [value * moved / read_bytes for value in times[prices.STREAM]]
    found.rows.append(_stream_row(setting, rates(stream, moved / 1e9)))
    exact = next((p.result() for p in able if p.name == "exact"), None)
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
        figures.append(_memory(provider, meter))
        figures += _outcome(outcomes, setting.repeats, exact is not None)
        found.rows += [_row(setting, provider, *figure) for figure in figures]
    return found


def _times(every: list[Provider], setting: Setting) -> dict[str, list[float]]:
    """Seconds of one call in every round."""
    counts = {p.name: setting.meter.calls_a_sample(p.seconds) for p in every}
    sampled = interleave(
        {p.name: repeated(p.call, counts[p.name]) for p in every},
        setting.repeats,
        under={p.name: p.under for p in every},
        seconds_of=setting.meter.seconds,
    )
    return {name: [value / counts[name] for value in values] for name, values in sampled.items()}


def _ratio(
    metric: str,
    others: list[float] | None,
    seconds: list[float],
    every: list[Provider],
    other: str,
) -> tuple[str, Spread | None, str]:
    if others is not None:
        return metric, ratios(others, seconds), ""
    return metric, None, next(p.why_not for p in every if p.name == other)


def _memory(provider: Provider, meter: Meter) -> tuple[str, Spread | None, str]:
    used = meter.extra_bytes(lambda: sum(tensor.nbytes for tensor in provider.result()))
    return prices.MEMORY, None if used is None else Spread.single(used, 1), provider.memory


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
    setting: Setting, provider: Provider, metric: str, spread: Spread | None, note: str
) -> Row:
    return Row(
        setting.case.name,
        provider.name,
        dtype_name(setting.dtype),
        setting.n,
        setting.threads,
        metric,
        _UNITS.get(metric, "x" if metric.startswith(("share", "ratio")) else "1"),
        spread,
        "" if provider.guarantee is None else str(provider.guarantee),
        note,
    )


def _stream_row(setting: Setting, spread: Spread) -> Row:
    return _row(setting, Provider(prices.STREAM, lambda: ()), prices.RATE, spread, "")
