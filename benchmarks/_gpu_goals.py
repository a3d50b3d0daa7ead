"""The bounds that the kernels for GPUs are held to: ratios, taken side by side in one run.

Standard library only: the table is written where nothing is built, too.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COPY", "DETERMINISTIC", "GOALS", "SIZES", "Goal"]

SIZES = {"256 MB": 256 << 20, "4 GB": 4 << 30}
"""Bytes of the input."""
COPY = "device copy"
DETERMINISTIC = "torch deterministic"


@dataclass(frozen=True)
class Goal:
    """How many times as fast `provider` is as `other`, and at least has to be; None: no bound.

    op, dtype: as in the rows. by_rate: bytes a second are compared, not times; a copy's count what
    it reads and what it writes.
    """

    measure: str
    op: str
    dtype: str
    provider: str
    other: str
    at_least: float | None = None
    aim: float | None = None
    by_rate: bool = False

    @property
    def metric(self) -> str:
        """Of the row that holds it."""
        return f"{'rate ' if self.by_rate else ''}ratio to {self.other}"


def _of_sum(dtype: str) -> list[Goal]:
    def goal(
        said: str,
        one: str,
        other: str,
        at_least: float | None = None,
        aim: float | None = None,
        by_rate: bool = False,
    ) -> Goal:
        return Goal(f"`sum` {dtype}, {said}", "sum", dtype, one, other, at_least, aim, by_rate)

    return [
        goal("`two_pass` to a device copy's rate", "two_pass", COPY, 0.9, 0.95, True),
        goal("`fixed_order` to a device copy's rate", "fixed_order", COPY, 0.9, 0.95, True),
        goal("`exact` to a device copy's rate", "exact", COPY, by_rate=True),
        goal("`exact` to `two_pass`", "exact", "two_pass", 0.9, 0.97),
        goal("`exact` to CUB `gpu_to_gpu`", "exact", "CUB gpu_to_gpu", 1.5, 2.0),
        goal("`two_pass` to CUB `run_to_run`", "two_pass", "CUB run_to_run"),
    ]


def _of_index_add(op: str, said: str) -> list[Goal]:
    place = (op, "float32", "fixed_point")
    return [
        Goal(f"`index_add`, {said}, `fixed_point` to `atomic`", *place, "atomic", 0.7, 1.0),
        Goal(
            f"`index_add`, {said}, `fixed_point` to torch's deterministic one",
            *place,
            DETERMINISTIC,
            5.0,
            10.0,
        ),
    ]


_NORM = ("layer_norm backward", "float32", "fixed_order")
_ATTENTION = ("attention backward", "bfloat16")

GOALS = [
    *_of_sum("float32"),
    *_of_sum("float64"),
    *_of_index_add("index_add elements", "elements into 1,000 places"),
    *_of_index_add("index_add rows", "rows of 64 into 100,000"),
    Goal("`layer_norm` backward, `fixed_order` to `atomic`", *_NORM, "atomic", 1.0, 3.0),
    Goal("`layer_norm` backward, `fixed_order` to torch", *_NORM, "torch"),
    Goal(
        "attention backward, `semaphore_ordered` to `atomic`",
        *_ATTENTION,
        "semaphore_ordered",
        "atomic",
        0.82,
        0.9,
    ),
    Goal("attention backward, `split_buffers` to `atomic`", *_ATTENTION, "split_buffers", "atomic"),
    Goal(
        "`digest` of parameters to a device copy's rate",
        "digest",
        "float32",
        "digest",
        COPY,
        0.85,
        0.95,
        by_rate=True,
    ),
    Goal("the same, read back", "digest", "float32", "digest and read", COPY, by_rate=True),
]
