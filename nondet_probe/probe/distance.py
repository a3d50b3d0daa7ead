"""How far two copies of a model are apart, parameter by parameter, step after step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nondet_probe.bits import compare, count_different

__all__ = ["Distances", "share_different"]

Floats = npt.NDArray[np.float64]

NO_ULP = -1
"""Stands for the ulp distance of a parameter whose dtype has no ulp."""


def share_different(model: torch.nn.Module, other: torch.nn.Module) -> float:
    """Share of all parameters' elements whose bits differ."""
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    elements = sum(a.numel() for a, _ in pairs)
    return sum(count_different(a, b) for a, b in pairs) / max(elements, 1)


@dataclass
class Distances:
    """Collects one comparison per parameter and step; gives the arrays of TwinRecord.series.

    elements: of each parameter, in the order of `model.parameters()`.
    """

    elements: list[int]
    # One array a step, over the parameters: squares of the difference, squares, elements differing.
    _sums: list[Floats] = field(default_factory=list)
    _ulps: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def add(self, model: torch.nn.Module, other: torch.nn.Module) -> int:
        """Compare the parameters as they are now; returns how many elements differ.

        Raises ValueError when a parameter has changed its shape or dtype, or there are others.
        """
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        row = [compare(a, b) for a, b in pairs]
        if [found.elements for found in row] != self.elements:
            raise ValueError("the parameters of the model are not those it began with")
        self._sums.append(
            np.array(
                [
                    [found.sum_squares_difference for found in row],
                    [found.sum_squares for found in row],
                    [found.different for found in row],
                ],
                dtype=np.float64,
            )
        )
        self._ulps.append(
            np.array(
                [NO_ULP if found.max_ulp is None else found.max_ulp for found in row],
                dtype=np.int64,
            )
        )
        return sum(found.different for found in row)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is known after the steps so far; the keys are those of TwinRecord.series."""
        steps, parameters = len(self._sums), len(self.elements)
        sums = np.array(self._sums, dtype=np.float64).reshape(steps, 3, parameters)
        max_ulp = np.array(self._ulps, dtype=np.int64).reshape(steps, parameters)
        apart, squares, different = sums[:, 0], sums[:, 1], sums[:, 2]
        elements = np.array(self.elements, dtype=np.float64)
        return {
            "distance": _relative(apart.sum(axis=1), squares.sum(axis=1)),
            "fraction": different.sum(axis=1) / max(elements.sum(), 1.0),
            "max_ulp": max_ulp.max(axis=1, initial=NO_ULP),
            "param_distance": _relative(apart, squares),
            "param_fraction": different / np.maximum(elements, 1.0),
            "param_max_ulp": max_ulp,
        }


def _relative(apart: Floats, squares: Floats) -> Floats:
    """sqrt(apart / squares); 0 where nothing is apart, inf where the run's own norm is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(apart) / np.sqrt(squares)
    return np.where(apart == 0.0, 0.0, ratio)
