"""Measures the cases of `_gpu_cases` on a GPU, within a given time, and keeps rows as they come.

python benchmarks/gpu_measure.py --rows FILE.csv --done FILE.txt [--seconds 90] [--device cuda]

Cases that the second file names are done already, and each is added to it when it is; so it can be
started again. Exit code 4: time ran out before all were done.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from _cub import Cub, cub
from _cub_cases import cub_rows
from _gpu_cases import Case, cases
from _gpu_goals import COPY, GOALS, SIZES

from nondet_probe.bits.digest import digests
from nondet_probe.env import snapshot
from nondet_probe.probe.meters import ON_GPU, Meter, meter_of
from nondet_probe.probe.timing import interleave, rates
from nondet_probe.records.figures import Row, Spread, append_rows, origin_of
from nondet_probe.records.prices import COLUMNS_OF_PRICES

__all__ = ["measured", "synchronisations"]

ROUNDS = 15
FEWEST_ROUNDS = 3
CASE_SECONDS = 6.0
"""For the rounds of a case, which are fewer where its calls take long."""
UNFINISHED = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--done", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    ends = time.monotonic() + given.seconds
    meter = meter_of(given.device)
    done = set(given.done.read_text("utf-8").splitlines()) if given.done.exists() else set()
    origin = origin_of(snapshot() | {"device": meter.name})
    found = _cub(meter.device, ends - time.monotonic())

    def keep(name: str, rows: list[Row]) -> None:
        append_rows(given.rows, rows, origin, COLUMNS_OF_PRICES)
        with given.done.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        print(f"{name}: {len(rows)} rows", flush=True)

    if "CUB's answers" not in done:
        keep("CUB's answers", cub_rows(found, meter.device))
    if "synchronisations" not in done:
        keep("synchronisations", [synchronisations(meter.device)])
    for name, size, make in cases(meter.device, SIZES, found):
        if f"{name}, {size}" in done:
            continue
        if time.monotonic() > ends:
            print("no time left", flush=True)
            return UNFINISHED
        with meter.set_up(ON_GPU):
            keep(f"{name}, {size}", list(measured(make(), size, meter)))
        gc.collect()
        torch.cuda.empty_cache()
    return 0


def _cub(device: torch.device, seconds: float) -> Cub | str:
    major, minor = torch.cuda.get_device_capability(device)
    return cub(f"{major}{minor}", seconds / 2)


def measured(case: Case, size: str, meter: Meter, rounds: int = ROUNDS) -> Iterator[Row]:
    """Times, rates and the ratios that `GOALS` are about; `note` of each row is the size. What
    raises has a row without a figure, whose note says why."""
    missing = dict(case.missing)
    calls = {}
    of_one_round = 0.0
    for name, call in case.calls.items():
        try:
            with case.under.get(name, _nothing)():
                call()
                of_one_round += meter.seconds(call)
        except Exception as error:  # whatever it is, it is this provider's answer
            missing[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        else:
            calls[name] = call
    rounds = max(FEWEST_ROUNDS, min(rounds, int(CASE_SECONDS / of_one_round)))
    times = interleave(calls, rounds, 1, under=case.under, seconds_of=meter.seconds)

    def row(provider: str, metric: str, unit: str, spread: Spread | None, note: str = size) -> Row:
        place = (case.dtype, case.n, ON_GPU)
        return Row(case.op, provider, *place, metric, unit, spread, "", note)

    moved = {name: 2 * case.copied if name == COPY else case.moved for name in calls}
    for name, seconds in times.items():
        yield row(name, "time", "s", Spread.of(seconds))
        yield row(name, "rate", "GB/s", rates(seconds, moved[name] / 1e9))
    for name, why in missing.items():
        yield row(name, "time", "s", None, f"{size}: {why}")
    for goal in GOALS:
        if (goal.op, goal.dtype) != (case.op, case.dtype):
            continue
        lost = [missing[name] for name in (goal.provider, goal.other) if name in missing]
        if lost:
            yield row(goal.provider, goal.metric, "x", None, f"{size}: {lost[0]}")
            continue
        scale = moved[goal.provider] / moved[goal.other] if goal.by_rate else 1.0
        pairs = zip(times[goal.other], times[goal.provider], strict=True)
        found = Spread.of([scale * other / one for other, one in pairs])
        yield row(goal.provider, goal.metric, "x", found)


def _nothing() -> warnings.catch_warnings[None]:
    return warnings.catch_warnings()


def synchronisations(device: torch.device, tensors: int = 500) -> Row:
    """How often the host waits for the device while many tensors are digested."""
    given = [torch.ones(1000 + number, device=device) for number in range(tensors)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _sync_debug("warn")
        try:
            digests(given)
        finally:
            _sync_debug("default")
    count = sum("called a synchronizing" in str(one.message) for one in told)
    spread = Spread.single(count, 1)
    row = Row("digest", "digest and read", "float32", tensors, ON_GPU, "waits", "count", spread)
    return replace(row, note=f"of {tensors} tensors")


def _sync_debug(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


if __name__ == "__main__":
    sys.exit(main())
