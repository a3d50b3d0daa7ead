"""Calls timed beside each other: interleaved, warmed up, with a spread.

What is compared runs in one process, one call of each in turn, so that whatever slows the machine
down slows all of them; a ratio is the median of the ratios within the rounds.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from nondet_probe.records.figures import Spread

__all__ = ["interleave", "keep_memory", "rates", "ratios", "repeated", "wall_seconds"]

Under = Mapping[str, Callable[[], AbstractContextManager[object]]]


def keep_memory() -> None:
    """Let glibc's malloc keep what is freed, in this process (mallopt(3)); elsewhere do nothing.

    Left alone it hands the top of the heap back to the system and takes it again, or not, as the
    heap happens to lie: 50 to 6,000 page faults in one training step of digits-cnn, up to 20 of
    45 ms, for the plain loop as for a probe. With this there are none in either.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 1 << 25)


def wall_seconds(call: Callable[[], object]) -> float:
    """How long the call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    under: Under | None = None,
    seconds_of: Callable[[Callable[[], object]], float] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every call in every round; each round calls all of them, in turn.

    The order is drawn anew for each round, the same in every run: a fixed one, rotated or not,
    would give each call always the same predecessor, whose leavings in the cache it finds.
    warmup: rounds before those, which are not kept. under: contexts in which the calls of these
    names run; entering and leaving them is not timed. seconds_of: makes a call and says how long it
    took; by default `wall_seconds`.
    """
    names = list(calls)
    under, seconds_of = under or {}, seconds_of or wall_seconds
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        for name in random.Random(turn).sample(names, len(names)):
            with under.get(name, nullcontext)():
                elapsed = seconds_of(calls[name])
            if turn >= 0:
                times[name].append(elapsed)
    return times


def repeated(call: Callable[[], object], count: int) -> Callable[[], None]:
    """A function that makes `count` calls: one alone may be too short for the clock."""

    def calls() -> None:
        for _ in range(count):
            call()

    return calls


def rates(seconds: Sequence[float], amount: float) -> Spread:
    """`amount` (bytes, elements) over seconds."""
    return Spread.of([amount / value for value in seconds])


def ratios(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times as fast `faster` is, round by round."""
    return Spread.of([a / b for a, b in zip(slower, faster, strict=True)])
