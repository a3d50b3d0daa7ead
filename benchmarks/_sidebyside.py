"""What the benchmarks of the moments ask in the same way: variants of an op beside torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from _harness import Row, Spread, interleave, rates, ratios, write_rows

__all__ = ["beside", "normal", "small", "torch_threads"]

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


def normal(
    shape: int | tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0
) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def row(
    op: str, provider: str, x: torch.Tensor, threads: int, metric: str, unit: str, of: Spread
) -> Row:
    dtype = str(x.dtype).removeprefix("torch.")
    return Row(op, provider, dtype, x.numel(), threads, metric, unit, of)


def beside(
    op: str,
    x: torch.Tensor,
    threads: int,
    calls: dict[str, Callable[[], object]],
    slower: str,
    nbytes: int = 0,
    shape: str = "",
) -> dict[str, float]:
    """Median ratios of all calls to `slower`; keeps rates and ratios. nbytes: read by one call;
    0 for those of x. shape: what to call it in the rows, where n does not tell."""
    with torch_threads(threads):
        times = interleave(calls, ROUNDS)
    gigabytes = (nbytes or x.nbytes) / 1e9
    name = {provider: f"{provider} {shape}".rstrip() for provider in calls}
    rows = [
        row(op, name[provider], x, threads, "rate", "GB/s", rates(seconds, gigabytes))
        for provider, seconds in times.items()
    ]
    found = {one: ratios(times[slower], times[one]) for one in calls if one != slower}
    rows += [
        row(op, name[one], x, threads, f"ratio to {slower}", "x", of) for one, of in found.items()
    ]
    write_rows(op, rows)
    return {one: of.median for one, of in found.items()}


def small(op: str, x: torch.Tensor, calls: dict[str, Callable[[], object]]) -> None:
    """Keeps microseconds a call, on one thread."""
    repeated = {
        name: lambda call=call: [call() for _ in range(CALLS)] for name, call in calls.items()
    }
    with torch_threads(1):
        times = interleave(repeated, ROUNDS)
    micro = CALLS / 1e6
    write_rows(
        op,
        [
            row(op, name, x, 1, "time", "us", Spread.of([value / micro for value in seconds]))
            for name, seconds in times.items()
        ],
    )
