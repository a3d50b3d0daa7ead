"""What the repeats of one call gave: how many results, how far apart, how far from exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nondet_probe.bits import compare, digest

__all__ = ["Measure", "Outcomes"]

Measure = Callable[[Tensor, Tensor], float]


class Outcomes:
    """Of one call; results are tuples of tensors on any device, seen one after the other.

    first: the digest of the first result. distinct: how many different results were seen.
    max_ulp: the largest ulp distance of an element to the exact result, None without one.
    measured: of each measure the value largest in magnitude, over all pairs of the first result
    and another one; a measure that does not take such a result (ValueError) is left out.
    """

    def __init__(
        self,
        first: tuple[Tensor, ...],
        exact: tuple[Tensor, ...] | None,
        measures: Mapping[str, Measure],
    ) -> None:
        self._reference, self._exact = _joined(first), exact
        self._measures = measures
        self.first = _digest(first)
        self._known = {self.first}
        self.max_ulp = self._ulps(first)
        self.measured: dict[str, float] = {}
        self._measure(first)

    @property
    def distinct(self) -> int:
        return len(self._known)

    def see(self, result: tuple[Tensor, ...]) -> None:
        found = _digest(result)
        if found in self._known:
            return
        self._known.add(found)
        self._measure(result)
        if self.max_ulp is not None:
            self.max_ulp = max(self.max_ulp, self._ulps(result) or 0)

    def _measure(self, result: tuple[Tensor, ...]) -> None:
        joined = _joined(result)
        for name, measure in self._measures.items():
            try:
                value = measure(self._reference, joined)
            except ValueError:
                continue
            # A NaN stays: it is not below anything.
            if not abs(value) <= abs(self.measured.get(name, -1.0)) or name not in self.measured:
                self.measured[name] = value

    def _ulps(self, result: tuple[Tensor, ...]) -> int | None:
        if self._exact is None:
            return None
        return max(compare(a, b).max_ulp or 0 for a, b in zip(self._exact, result, strict=True))


def _digest(result: tuple[Tensor, ...]) -> str:
    return " ".join(str(digest(tensor)) for tensor in result)


def _joined(result: tuple[Tensor, ...]) -> Tensor:
    """All elements in one row, in host memory."""
    if len(result) == 1:
        return result[0].reshape(-1).cpu()
    return torch.cat([tensor.reshape(-1).cpu() for tensor in result])
