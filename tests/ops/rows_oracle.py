"""Row-wise ops a second time: with fractions and `decimal`, and their formats with numpy.

The first half knows no rounding and says what the results should be; the second half repeats every
single rounding of the documented formats, in numpy, and says what the bits must be.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "column_sums",
    "computed",
    "exact_cross_entropy",
    "exact_norm",
    "exact_norm_gradient",
    "exact_softmax",
    "fractions_of",
    "norm",
    "norm_gradients",
    "row_sum",
    "unit",
]

DIGITS = 60


def unit(dtype: torch.dtype) -> Fraction:
    """Half an ulp of 1 in the type that rows of `dtype` are computed in."""
    return Fraction(2) ** (-53 if dtype is torch.float64 else -24)


def fractions_of(x: Tensor) -> list[Fraction]:
    return [Fraction(value) for value in x.double().reshape(-1).tolist()]


def _decimal(x: Fraction) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator)


def _root(x: Fraction) -> Fraction:
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction(_decimal(x).sqrt())


def _exp(x: Fraction) -> Fraction:
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction(_decimal(x).exp())


def _log(x: Fraction) -> Fraction:
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction(_decimal(x).ln())


# ---- what the results should be


def _normed(x: list[Fraction], eps: float, centred: bool) -> tuple[list[Fraction], Fraction]:
    """(x - mean) * scale, and scale."""
    n = len(x)
    mean = sum(x, Fraction(0)) / n if centred else Fraction(0)
    variance = sum(((v - mean) ** 2 for v in x), Fraction(0)) / n
    scale = 1 / _root(variance + Fraction(eps))
    return [(v - mean) * scale for v in x], scale


def exact_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool
) -> list[Fraction]:
    """One row of layer_norm, or rms_norm."""
    normed, _ = _normed(fractions_of(x), eps, centred)
    shift = fractions_of(bias) if bias is not None else [Fraction(0)] * len(normed)
    return [v * w + b for v, w, b in zip(normed, fractions_of(weight), shift, strict=True)]


def exact_norm_gradient(
    dy: Tensor, x: Tensor, weight: Tensor, eps: float, centred: bool
) -> list[Fraction]:
    """The gradient of one row."""
    normed, scale = _normed(fractions_of(x), eps, centred)
    n = len(normed)
    inner = [g * w for g, w in zip(fractions_of(dy), fractions_of(weight), strict=True)]
    along = sum((g * v for g, v in zip(inner, normed, strict=True)), Fraction(0)) / n
    level = sum(inner, Fraction(0)) / n if centred else Fraction(0)
    return [scale * (g - level - v * along) for g, v in zip(inner, normed, strict=True)]


def exact_softmax(x: Tensor, log: bool) -> list[Fraction]:
    """One row."""
    values = fractions_of(x)
    most = max(values)
    terms = [_exp(v - most) for v in values]
    total = sum(terms, Fraction(0))
    if log:
        return [v - most - _log(total) for v in values]
    return [term / total for term in terms]


def exact_cross_entropy(
    x: Tensor, target: int, weight: list[Fraction], smoothing: float
) -> Fraction:
    """The loss of one row."""
    logs = exact_softmax(x, True)
    eps = Fraction(smoothing)
    smooth = -sum((w * v for w, v in zip(weight, logs, strict=True)), Fraction(0)) / len(logs)
    return -(1 - eps) * weight[target] * logs[target] + eps * smooth


# ---- what the bits must be


def computed(x: Tensor) -> np.ndarray:
    """The elements in the type that they are computed in."""
    wide: np.ndarray = (x if x.dtype is torch.float64 else x.float()).numpy()
    return wide


def row_sum(x: np.ndarray) -> np.ndarray:
    """The fixed_order sum: 64 lanes, chunks of 4096, neighbours in rounds."""
    partials = []
    for start in range(0, len(x), 4096):
        chunk = x[start : start + 4096]
        padded = np.full(-(-len(chunk) // 64) * 64, -0.0, x.dtype)
        padded[: len(chunk)] = chunk
        lanes = np.full(64, -0.0, x.dtype)
        for row in padded.reshape(-1, 64):
            lanes = lanes + row
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        partials.append(lanes[0])
    return _in_rounds(partials)


def _in_rounds(parts: list[np.ndarray]) -> np.ndarray:
    while len(parts) > 1:
        odd = parts[len(parts) // 2 * 2 :]
        parts = [a + b for a, b in zip(parts[0::2], parts[1::2], strict=False)] + odd
    return parts[0]


def column_sums(terms: np.ndarray) -> np.ndarray:
    """Down the columns: chunks of 32 rows in order, neighbours in rounds."""
    parts = []
    for start in range(0, len(terms), 32):
        total = np.full(terms.shape[1], -0.0, terms.dtype)
        for row in terms[start : start + 32]:
            total = total + row
        parts.append(total)
    return _in_rounds(parts)


def _statistics(x: np.ndarray, eps: float, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    kind = x.dtype.type
    n = kind(len(x))
    mean = row_sum(x) / n if centred else kind(0)
    apart = x - mean if centred else x
    return mean, kind(1) / np.sqrt(row_sum(apart * apart) / n + kind(eps))


def norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, eps: float, centred: bool
) -> np.ndarray:
    """Rows of layer_norm or rms_norm, before the rounding to the dtype."""
    rows = []
    for row in x:
        mean, scale = _statistics(row, eps, centred)
        y = ((row - mean) if centred else row) * scale * weight
        rows.append(y if bias is None else y + bias)
    return np.stack(rows)


def norm_gradients(
    dy: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    eps: float,
    centred: bool,
    sums: Callable[[np.ndarray], np.ndarray] = column_sums,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dgamma, dbeta."""
    n = x.dtype.type(x.shape[1])
    rows, terms = [], []
    for gradient, row in zip(dy, x, strict=True):
        mean, scale = _statistics(row, eps, centred)
        normed = ((row - mean) if centred else row) * scale
        term = gradient * normed
        terms.append(term)
        along = row_sum(term * weight) / n
        taken = normed * along
        if centred:
            taken = taken + row_sum(gradient * weight) / n
        rows.append((gradient * weight - taken) * scale)
    return np.stack(rows), sums(np.stack(terms)), sums(dy)
