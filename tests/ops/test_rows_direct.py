"""The row-wise operators called past their public functions: sizes that do not fit are refused, not
read beyond."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nondet_probe import ops  # noqa: F401  registers the operators
from nondet_probe.errors import UsageError

OPERATORS = torch.ops.nondet_probe
X = torch.ones(4, 6)
STATISTICS = torch.ones(2, 4)
TARGET = torch.zeros(4, dtype=torch.int64)
SUM = torch.ones((), dtype=torch.float64)

CALLS = {
    "columns": lambda: OPERATORS.layer_norm(X, 5, None, None, 1e-5, True),
    "weight": lambda: OPERATORS.layer_norm(X, 6, torch.ones(5), None, 1e-5, True),
    "weight of another dtype": lambda: OPERATORS.layer_norm(
        X, 6, torch.ones(6, dtype=torch.float16), None, 1e-5, True
    ),
    "gradient": lambda: OPERATORS.layer_norm_backward(
        X[:3], X, 6, None, STATISTICS, True, True, "fixed_order"
    ),
    "statistics": lambda: OPERATORS.layer_norm_backward(
        X, X, 6, None, STATISTICS[:1], True, True, "fixed_order"
    ),
    "softmax's gradient": lambda: OPERATORS.softmax_backward(X[:, :5], X, False),
    "target": lambda: OPERATORS.cross_entropy(X, TARGET[:3], None, -100, 1, 0.0, "exact"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_sizes_that_do_not_fit_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"are needed|has no rows of"):
        call()


def test_the_same_with_sizes_that_fit() -> None:
    OPERATORS.layer_norm(X, 6, torch.ones(6), None, 1e-5, True)
    OPERATORS.layer_norm_backward(X, X, 6, None, STATISTICS, True, True, "fixed_order")
