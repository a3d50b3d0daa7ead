"""How many elements lie in each bin, or the sum of their weights, in four variants from no
guarantee to correctly rounded.

    >>> import torch
    >>> x = torch.tensor([0.0, 0.5, 1.0, 3.0])
    >>> histogram(x, 3)
    Histogram(hist=tensor([2., 1., 1.]), bin_edges=tensor([0., 1., 2., 3.]))
    >>> histogram(x, 3, weight=torch.tensor([1e8, 2.0, 1.0, -1e8])).hist
    tensor([ 1.0000e+08,  1.0000e+00, -1.0000e+08])

What each variant promises, its error bound and its cost: `registry.variants("histogram")`,
docs/ops/histogram.md.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops import via_c
from nondet_probe.ops.checks import check_dtype, check_memory
from nondet_probe.ops.define import define
from nondet_probe.ops.rational import exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["Histogram", "histogram", "histogram_ref"]

_DTYPES = (torch.float64, torch.float32)
_COUNTS = "; without weight the counts are exact in every variant, then rounded to the dtype"

register(
    Variant(
        op="histogram",
        name="atomic",
        guarantee=Guarantee.NONE,
        cross_device=False,
        batch_invariant=False,
        error_bound="n u/(1 - n u) sum|w| over the n weights of a bin" + _COUNTS,
        extra_memory="with weight 8 bytes an element",
        worst_case="from two threads up every call with weight may give other bits",
        dtypes=_DTYPES,
        doc="Threads add weights to shared bins, in the order in which they arrive.",
    )
)
register(
    Variant(
        op="histogram",
        name="ordered",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=False,
        error_bound="n u/(1 - n u) sum|w| over the n weights of a bin" + _COUNTS,
        extra_memory="with weight 8 bytes an element, and as index_add's ordered",
        worst_case="cancellation: the bound is relative to sum|w|, not to the result",
        dtypes=_DTYPES,
        doc="The order of the additions is a function of the bins alone: index_add's ordered.",
    )
)
register(
    Variant(
        op="histogram",
        name="fixed_point",
        guarantee=Guarantee.ORDER_INVARIANT,
        cross_device=False,
        batch_invariant=False,
        error_bound=(
            "n (N + 1) max|w| 2^-61, N weights in all, those outside of the bins too, of which n "
            "in the bin, then one rounding" + _COUNTS
        ),
        extra_memory="with weight 8 bytes an element, and as index_add's fixed_point",
        worst_case="a bin whose weights are small beside the largest weight of all",
        dtypes=_DTYPES,
        doc="Weights on one absolute grid, added as integers: index_add's fixed_point.",
    )
)
register(
    Variant(
        op="histogram",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=False,
        error_bound="half an ulp of the result, always, densities too",
        extra_memory=(
            "with weight 8 bytes an element, and as index_add's exact; 600 bytes a bin for "
            "densities with weight"
        ),
        worst_case="densities: their fractions are made in Python, about 5 us a bin",
        dtypes=_DTYPES,
        doc="The exact sum of each bin, rounded once: index_add's exact.",
    )
)


class Histogram(NamedTuple):
    """hist: [bins]. bin_edges: [bins + 1]. Both of the dtype of the input."""

    hist: Tensor
    bin_edges: Tensor


def histogram(
    input: Tensor,
    bins: int | Tensor,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
    variant: str = "exact",
    threads: int | None = None,
) -> Histogram:
    """The number of elements in each bin, or the sum of their weights, as `torch.histogram`.

    input: CPU tensor of any shape; float64 or float32.
    bins: how many of equal width, or their edges [bins + 1], of input's dtype, none below the one
        before it. A bin holds its lower edge and not its upper one; the last one holds both. What
        lies outside, and NaN, is in no bin.
    range: the outer edges of bins of equal width; None is the least and the largest element.
        Where they are equal, both move away from each other by 0.5.
    weight: None or a tensor of input's shape and dtype.
    density: divides each bin by the total of all bins and by its width. "exact" rounds the exact
        quotient once; the others divide what they added, in float64, and round that.
    variant: "exact" (the default: the strongest promise is also fast), "fixed_point", "ordered" or
        "atomic". Without weight all of them count, in integers; the count is then rounded.
    threads: the most to use; None is torch.get_num_threads().

    Edges of equal width may differ from torch's in their last bits, which there depend on the
    instruction set; docs/ops/histogram.md. Not differentiable.

    Raises UnknownNameError for an unknown variant; TypeError for a device, dtype or layout that is
    not taken; UsageError for bins, a range or shapes that do not fit, or threads below 1.
    """
    find("histogram", variant)
    if not isinstance(input, Tensor):
        raise TypeError(f"histogram takes a torch.Tensor, got {type(input).__name__}")
    if isinstance(bins, Tensor):
        if range is not None:
            raise UsageError("range goes with a number of bins, not with edges")
        edges = bins.clone()
    else:
        if range is not None and len(range) != 2:
            raise UsageError(f"range is two numbers, got {len(range)}")
        low, high = (None, None) if range is None else (float(range[0]), float(range[1]))
        edges = _edges(input, bins, low, high)
    uniform = not isinstance(bins, Tensor)
    return Histogram(_histogram(input, edges, uniform, weight, density, variant, threads), edges)


# ---- edges


def _check_edges(input: Tensor, bins: int, low: float | None, high: float | None) -> None:
    check_dtype("histogram", "exact", input)
    if bins < 1:
        raise UsageError(f"bins must be at least 1, got {bins}")


def _edges_on_cpu(input: Tensor, bins: int, low: float | None, high: float | None) -> Tensor:
    _check_edges(input, bins, low, high)
    check_memory(input)
    if low is None or high is None:
        low, high = via(input).range_of(input.contiguous())
    return via(input).edges_beside(input, low, high, bins)  # type: ignore[no-any-return]


def _edges_without_data(input: Tensor, bins: int, low: float | None, high: float | None) -> Tensor:
    _check_edges(input, bins, low, high)
    return input.new_empty((bins + 1,))


_edges = define(
    "histogram_edges",
    "(Tensor input, int bins, float? low, float? high) -> Tensor",
    kernel=_edges_on_cpu,
    fake=_edges_without_data,
    cuda=True,
)


# ---- bins


def _check(input: Tensor, edges: Tensor, weight: Tensor | None, variant: str) -> None:
    check_dtype("histogram", variant, input)
    if edges.dim() != 1 or edges.shape[0] < 2:
        raise UsageError(
            f"edges of bins have one dimension and at least 2 elements, got shape "
            f"{tuple(edges.shape)}"
        )
    for name, other in (("bins", edges), ("weight", weight)):
        if other is not None and other.dtype is not input.dtype:
            raise TypeError(
                f"{name} must have the dtype of input, {input.dtype}, got {other.dtype}"
            )
    if weight is not None and weight.shape != input.shape:
        raise UsageError(
            f"weight must have the shape of input, {tuple(input.shape)}, got {tuple(weight.shape)}"
        )


def _on_cpu(
    input: Tensor,
    edges: Tensor,
    uniform: bool,
    weight: Tensor | None,
    density: bool,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    _check(input, edges, weight, variant)
    for given in (input, edges, weight):
        if given is not None:
            check_memory(given)
    x, edges, kernels = input.contiguous(), edges.contiguous(), via(input)
    at = -1 if uniform else kernels.falling_edge(edges)
    if at >= 0:
        raise UsageError(
            f"edges of bins must not fall: edge {at} is {edges[at].item()}, the one before it "
            f"{edges[at - 1].item()}"
        )
    bins = edges.shape[0] - 1
    if weight is None:
        hist: Tensor
        counts, hist = kernels.count_bins(x, edges, uniform, threads)
        if density and variant == "exact":
            return _densities([Fraction(count) for count in counts.tolist()], edges)
    else:
        index = kernels.find_bins(x, edges, uniform, threads)
        weight = weight.contiguous()
        if density and variant == "exact":
            return _densities(_exact_bins(index, weight, bins), edges)
        # The last is for elements in no bin.
        sums = x.new_zeros(bins + 1)
        kernels.scatter_rows(sums, bins + 1, index, weight, variant, threads)
        hist = sums[:bins].clone()
    if density:
        kernels.normalise(hist, edges)
    return hist


def _without_data(
    input: Tensor,
    edges: Tensor,
    uniform: bool,
    weight: Tensor | None,
    density: bool,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    _check(input, edges, weight, variant)
    return input.new_empty((edges.shape[0] - 1,))


_histogram = define(
    "histogram",
    "(Tensor input, Tensor edges, bool uniform, Tensor? weight, bool density, str variant,"
    " int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    cuda=True,
)


# ---- exact densities


def _exact_bins(index: Tensor, weight: Tensor, bins: int) -> list[Fraction | float]:
    """The exact sum of every bin; a float where it is no number."""
    digits, specials = via(index).bin_sums(index, weight, bins)
    unit = Fraction(2) ** via_c.EXACT_LOWEST
    sums: list[Fraction | float] = []
    for of_bin, special in zip(digits.tolist(), specials.tolist(), strict=True):
        if special:
            sums.append({1: math.inf, 2: -math.inf}.get(special, math.nan))
        else:
            sums.append(_number(of_bin) * unit)
    return sums


def _number(digits: list[int]) -> int:
    """digits of base 2**32, lowest first; the last may have any sign."""
    total = 0
    for digit in reversed(digits):
        total = (total << 32) + digit
    return total


def _densities(sums: Sequence[Fraction | float], edges: Tensor) -> Tensor:
    total = _add(sums)
    result = [
        tensor_of_bits(
            round_to_bits(_divide(_divide(value, total), width), edges.dtype), edges.dtype
        )
        for value, width in zip(sums, _widths(edges), strict=True)
    ]
    return torch.stack(result).to(edges.device)


def _add(values: Sequence[Fraction | float]) -> Fraction | float:
    specials = {value for value in values if isinstance(value, float)}
    if specials:
        return specials.pop() if len(specials) == 1 else math.nan
    return sum((value for value in values if isinstance(value, Fraction)), Fraction(0))


def _widths(edges: Tensor) -> list[Fraction | float]:
    limits = [exact_sum(edge) or Fraction(0) for edge in edges]  # no -0.0
    return [upper - lower for lower, upper in itertools.pairwise(limits)]


def _divide(value: Fraction | float, by: Fraction | float) -> Fraction | float:
    """As IEEE 754 divides, but for rounding; a zero divisor counts as positive."""
    if isinstance(value, Fraction) and isinstance(by, Fraction) and by != 0:
        return value / by
    if isinstance(by, float):
        if math.isnan(by) or isinstance(value, float):
            return math.nan
        return Fraction(0)
    if isinstance(value, float):
        return value if by >= 0 else -value
    return math.nan if value == 0 else math.copysign(math.inf, value)


def histogram_ref(
    input: Tensor,
    bins: int | Tensor,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Histogram:
    """What `histogram(variant="exact")` must give, by fractions and integers alone. Slow.

    Bins of equal width take their edges from `histogram`."""
    edges = bins
    if not isinstance(edges, Tensor):
        edges = histogram(input, bins, range=range).bin_edges
    limits = edges.tolist()
    places: list[list[int]] = [[] for _ in limits[1:]]
    for place, value in enumerate(input.reshape(-1).tolist()):
        if limits[0] <= value <= limits[-1]:
            places[min(bisect.bisect_right(limits, value), len(limits) - 1) - 1].append(place)
    weights = torch.ones_like(input) if weight is None else weight
    flat = weights.reshape(-1)
    sums = [exact_sum(torch.cat([flat[some], flat.new_zeros(1)])) for some in places]
    if density:
        return Histogram(_densities(sums, edges), edges)
    bits = [round_to_bits(value, input.dtype) for value in sums]
    return Histogram(torch.stack([tensor_of_bits(some, input.dtype) for some in bits]), edges)
