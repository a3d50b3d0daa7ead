"""scikit-learn's 1,797 handwritten digits, as the workloads on them read and split them."""

from __future__ import annotations

from functools import cache

import torch

from nondet_probe.errors import UsageError
from nondet_probe.workloads._batches import stream

__all__ = ["digits", "split"]

HELD_OUT = 360


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images, float32 [1797, 1, 8, 8] in 0..1, and their labels, int64 [1797].

    Raises `UsageError` where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(
            f"the digits need scikit-learn, which cannot be imported ({error}); "
            "install it with: pip install 'nondet-probe[workloads]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).to(torch.float32).view(-1, 1, 8, 8) / 16
    return images, torch.from_numpy(labels).to(torch.int64)


def split(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the images to train on, int64 [1437], and of those held out, int64 [360]."""
    order = torch.randperm(len(digits()[0]), generator=stream(seed, "split"))
    return order[HELD_OUT:], order[:HELD_OUT]
