"""How far two copies of a training are apart: every tensor of their states, step after step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from nondet_probe.bits import ULP_BUCKETS, ULP_MAX, Comparison, compare, count_different
from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.errors import UsageError
from nondet_probe.probe.state import KINDS, Part, parts, same
from nondet_probe.records.measured import MeasuredTensor
from nondet_probe.workload import Workload

__all__ = ["Apart", "Distances", "Measured", "share_different"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

NO_ULP = -1
"""Stands for the ulp distance of a tensor whose dtype has no ulp, or that was not there."""

_MISSING = object()


def share_different(model: torch.nn.Module, other: torch.nn.Module) -> float:
    """Share of all parameters' elements whose bits differ."""
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    elements = sum(a.numel() for a, _ in pairs)
    return sum(count_different(a, b) for a, b in pairs) / max(elements, 1)


class Apart(NamedTuple):
    """What one step showed. parameters: how many of their elements differ; first: the name of the
    first part of the state that differs in any bit, or None."""

    parameters: int
    first: str | None


@dataclass
class Measured:
    """The tensors seen after one step, by their number in `Distances.tensors`; first: as in
    `Apart`."""

    numbers: list[int]
    found: list[Comparison]
    first: str | None = None


class Distances:
    """Collects one comparison per tensor and step; gives the arrays of TwinRecord.series.

    tensors: what is compared, in the order in which it was first seen: the parameters of `run` in
    their order, then its buffers, then what its steps bring about. elements: of each parameter.
    brief: all is compared, and `overall` is all that is kept.
    """

    def __init__(self, run: Workload, *, brief: bool = False) -> None:
        self.tensors: list[MeasuredTensor] = []
        self._brief = brief
        self._numbers: dict[tuple[str, str], int] = {}
        self._steps: list[Measured] = []
        for name, parameter in run.model.named_parameters():
            self._number(Part("parameter", name, parameter))
        self.elements = [tensor.elements for tensor in self.tensors]

    def add(self, run: Workload, other: Workload) -> Apart:
        """Compare the states as they are now, and keep what was found. Raises as `measure`."""
        return self.keep(self.measure(run, other))

    def measure(self, run: Workload, other: Workload) -> Measured:
        """Compare the states as they are now.

        A part that only one of them has, or that is of another dtype or shape in each, differs and
        has no figures. Raises ValueError when a parameter has changed its shape or dtype, or there
        are others; UsageError naming a tensor whose bits cannot be read.
        """
        theirs = {(part.kind, part.name): part.value for part in parts(other)}
        step = Measured([], [])
        first: str | None = None
        for part in parts(run):
            value = theirs.pop((part.kind, part.name), _MISSING)
            pair = _pair(part, value)
            if pair is None:
                differs = not same(part.told, part.value, value)
            else:
                step.numbers.append(self._number(part))
                step.found.append(pair)
                differs = pair.different != 0
            if differs and first is None:
                first = part.told
        if first is None and theirs:
            first = Part(*next(iter(theirs)), None).told
        mine = step.found[: len(self.elements)]
        if step.numbers[: len(mine)] != list(range(len(mine))) or self.elements != [
            found.elements for found in mine
        ]:
            raise ValueError("the parameters of the model are not those it began with")
        step.first = first
        return step

    def keep(self, step: Measured) -> Apart:
        """Add what `measure` gave as the next step."""
        mine, first = step.found[: len(self.elements)], step.first
        if self._brief:
            step = Measured(step.numbers[: len(mine)], [one._replace(ulps=None) for one in mine])
        self._steps.append(step)
        return Apart(sum(found.different for found in mine), first)

    def _number(self, part: Part) -> int:
        key = (part.kind, part.name)
        if key not in self._numbers:
            self._numbers[key] = len(self.tensors)
            self.tensors.append(
                MeasuredTensor(
                    part.kind, part.name, part.value.numel(), dtype_name(part.value.dtype)
                )
            )
        return self._numbers[key]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is known after the steps so far; the keys are those of TwinRecord.series."""
        sums, counts, ulps = self._stacked()
        apart, squares, others, dots = np.moveaxis(sums, 2, 0)
        elements, different, max_ulp = np.moveaxis(counts, 2, 0)
        present = elements >= 0
        distance = _relative(apart, squares)
        share = np.where(present, different / np.maximum(elements, 1), np.nan)
        kinds = np.array([KINDS.index(tensor.kind) for tensor in self.tensors], dtype=np.int64)
        own = kinds == KINDS.index("parameter")
        return _overall(sums[:, own], counts[:, own], self.elements) | {
            "param_distance": distance[:, own],
            "param_fraction": share[:, own],
            "param_max_ulp": max_ulp[:, own],
            "tensor_distance": distance,
            "tensor_share": share,
            "tensor_max_ulp": max_ulp,
            "tensor_median_ulp": np.minimum(_median(ulps), max_ulp),
            "tensor_cosine": _cosine(dots, squares, others, different == 0),
            "tensor_ulps": _trimmed(ulps),
            "kind_distance": _by_kind(apart, squares, kinds, present),
        }

    def overall(self) -> dict[str, npt.NDArray[Any]]:
        """ "distance", "fraction" and "max_ulp" of `arrays`, with the same bits."""
        sums, counts, _ = self._stacked(histograms=False)
        own = slice(len(self.elements))
        return _overall(sums[:, own], counts[:, own], self.elements)

    def _stacked(self, histograms: bool = True) -> tuple[Floats, Counts, Counts]:
        """The sums (difference, run, other, dot) [steps, tensors, 4]; elements, different ones and
        largest ulp [steps, tensors, 3]; the histograms [steps, tensors, ULP_BUCKETS].

        What was not there has sums of NaN, -1 elements and an empty histogram.
        """
        shape = (len(self._steps), len(self.tensors))
        sums = np.full((*shape, 4), np.nan)
        counts = np.zeros((*shape, 3), dtype=np.int64)
        counts[...] = (-1, 0, NO_ULP)
        ulps = np.zeros((*shape, ULP_BUCKETS) if histograms else 0, dtype=np.int64)
        for number, step in enumerate(self._steps):
            for place, found in zip(step.numbers, step.found, strict=True):
                sums[number, place] = (
                    found.sum_squares_difference,
                    found.sum_squares,
                    found.sum_squares_other,
                    found.dot,
                )
                ulp = NO_ULP if found.max_ulp is None else found.max_ulp
                counts[number, place] = (found.elements, found.different, ulp)
                if histograms and found.ulps is not None:
                    ulps[number, place] = found.ulps
        return sums, counts, ulps


def _pair(part: Part, other: Any) -> Comparison | None:
    """None where the two are no tensors of one dtype and shape."""
    mine = part.value
    if not isinstance(mine, torch.Tensor) or not isinstance(other, torch.Tensor):
        return None
    if mine.dtype is not other.dtype or mine.shape != other.shape:
        return None
    try:
        return compare(mine, other)
    except TypeError as error:
        raise UsageError(f"{part.told} cannot be compared bit by bit: {error}") from error


def _overall(sums: Floats, counts: Counts, elements: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
    """Over all parameters: what `Distances._stacked` has of them, and their elements."""
    # Contiguous, since the order of additions depends on the strides.
    apart, squares = (np.ascontiguousarray(sums[..., place]).sum(axis=1) for place in (0, 1))
    return {
        "distance": _relative(apart, squares),
        "fraction": counts[..., 1].sum(axis=1) / max(sum(elements), 1),
        "max_ulp": counts[..., 2].max(axis=1, initial=NO_ULP),
    }


def _relative(apart: Floats, squares: Floats) -> Floats:
    """sqrt(apart / squares); 0 where nothing is apart, inf where the run's own norm is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(apart) / np.sqrt(squares)
    return np.where(apart == 0.0, 0.0, ratio)


def _by_kind(
    apart: Floats, squares: Floats, kinds: Counts, present: npt.NDArray[np.bool_]
) -> Floats:
    """[steps, KINDS]: the relative distance over all tensors of a kind; NaN where there is none."""
    found = np.full((len(apart), len(KINDS)), np.nan)
    for kind in range(len(KINDS)):
        own = kinds == kind
        there = present[:, own]
        # Not nansum: a NaN of the tensors themselves is to be seen.
        sums = [np.where(there, values[:, own], 0.0).sum(axis=1) for values in (apart, squares)]
        found[:, kind] = np.where(there.any(axis=1), _relative(*sums), np.nan)
    return found


def _cosine(dots: Floats, squares: Floats, others: Floats, equal: npt.NDArray[np.bool_]) -> Floats:
    """Of the angle between the two; NaN where a norm is 0 or not finite, or nothing is there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.clip(dots / np.sqrt(squares) / np.sqrt(others), -1.0, 1.0)
    return np.where(equal & np.isfinite(cosine), 1.0, cosine)


def _median(ulps: Counts) -> Counts:
    """Upper bound of the (lower) median distance over all elements: the end of its bucket."""
    total = ulps.sum(axis=2)
    # The first bucket at which half of the elements are reached.
    reached = np.argmax(2 * ulps.cumsum(axis=2) >= total[..., None], axis=2)
    ends = np.array([2**k - 1 for k in range(ULP_BUCKETS - 1)] + [ULP_MAX], dtype=np.int64)
    return np.where(total > 0, ends[reached], NO_ULP)


def _trimmed(ulps: Counts) -> npt.NDArray[Any]:
    """The histograms without what no tensor ever used, as small whole numbers as they fit.

    Kept are the buckets from 0 to the last one used below ULP_MAX, and always that of ULP_MAX, the
    last.
    """
    used = np.flatnonzero(ulps[..., :-1].any(axis=(0, 1)))
    kept = [*range(int(used[-1]) + 1 if used.size else 1), ULP_BUCKETS - 1]
    small = ulps[..., kept]
    return small.astype(np.min_scalar_type(int(small.max(initial=0))))
