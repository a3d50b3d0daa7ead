"""The shape of what comparing two state files found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["LeafDifference", "LeafKind", "StateDifference"]

LeafKind = Literal["bits", "dtype", "shape", "value", "type", "only_a", "only_b"]


@dataclass
class LeafDifference:
    """A tensor or plain value that is not the same in both files.

    kind: "bits" (tensors of one dtype and shape), "dtype" (the shape may differ too), "shape",
    "value" (of one type), "type", "only_a", "only_b". a, b: what each file has, in words
    ("float32 [3, 4]", "0.001"), None where it has nothing.
    Of bits alone: elements; different: those that differ; max_ulp: the largest distance, None for
    dtypes without ulps; first: row-major index of the first; first_a, first_b: its values and bits.
    """

    name: str
    kind: LeafKind
    a: str | None
    b: str | None
    elements: int = 0
    different: int = 0
    max_ulp: int | None = None
    first: list[int] | None = None
    first_a: str | None = None
    first_b: str | None = None


@dataclass
class StateDifference:
    """What `diff` says of two state files.

    tensors, values: of both files, compared; elements: of those tensors, and different: those whose
    bits differ. differences: in the order of file a, then what only b has. not_covered: name of a
    leaf that could not be compared -> why.
    """

    a: str
    b: str
    tensors: int = 0
    values: int = 0
    elements: int = 0
    different: int = 0
    differences: list[LeafDifference] = field(default_factory=list)
    not_covered: dict[str, str] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether all was compared and nothing differs."""
        return not self.differences and not self.not_covered
