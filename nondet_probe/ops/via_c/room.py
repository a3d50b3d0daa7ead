"""Memory for what a kernel writes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["room"]


def room(like: Tensor, shape: Sequence[int]) -> Tensor:
    """A contiguous tensor of this shape, not initialised, of another one's dtype and device."""
    # From a sequence torch takes 0.4 us more to read the sizes, from a torch.Size 1 us.
    return like.new_empty(*shape) if shape else like.new_empty(())
