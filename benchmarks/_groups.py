"""What the benchmarks of sums in groups share: every variant beside torch's op, large and small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from _harness import Row, Spread, interleave, rates, ratios, write_rows

__all__ = ["beside", "small", "torch_threads"]

ROUNDS = 11
CALLS = 300  # of a small one in a round


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def beside(
    op: str,
    case: str,
    x: torch.Tensor,
    threads: int,
    calls: Mapping[str, Callable[[], object]],
) -> dict[str, float]:
    """Median ratios of all calls to the first, which is torch's; keeps rates and ratios.

    case: of the data, written behind the providers' names; x: what is added up."""
    with torch_threads(threads):
        times = interleave(calls, ROUNDS)
    slower = next(iter(calls))
    dtype = str(x.dtype).removeprefix("torch.")

    def row(name: str, metric: str, unit: str, of: Spread) -> Row:
        return Row(op, f"{name}, {case}", dtype, x.numel(), threads, metric, unit, of)

    found = {name: ratios(times[slower], times[name]) for name in calls if name != slower}
    write_rows(
        op,
        [
            *(row(name, "rate", "GB/s", rates(times[name], x.nbytes / 1e9)) for name in calls),
            *(row(name, f"ratio to {slower}", "x", of) for name, of in found.items()),
        ],
    )
    return {name: of.median for name, of in found.items()}


def small(op: str, x: torch.Tensor, calls: Mapping[str, Callable[[], object]]) -> None:
    """Microseconds a call on one thread, Python and all."""
    many = {name: lambda call=call: [call() for _ in range(CALLS)] for name, call in calls.items()}
    with torch_threads(1):
        times = interleave(many, ROUNDS)
    dtype = str(x.dtype).removeprefix("torch.")
    micro = CALLS / 1e6
    write_rows(
        op,
        [
            Row(
                op,
                name,
                dtype,
                x.numel(),
                1,
                "time",
                "us",
                Spread.of([value / micro for value in seconds]),
            )
            for name, seconds in times.items()
        ],
    )
