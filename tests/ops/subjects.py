"""Every deterministic variant of every op as a function of one vector: what is tortured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nondet_probe import ops
from nondet_probe.ops import Guarantee, Variant, variants

__all__ = ["SUBJECTS", "Subject"]


@dataclass(frozen=True)
class Subject:
    """call(x, threads): x is 1-D of any stride. exactly(x): the right result of the variant, for
    at most `most` elements; None where only sameness is asked for."""

    call: Callable[[Tensor, int], Tensor]
    exactly: Callable[[Tensor], Tensor] | None = None
    most: int = 5000


SUBJECTS: dict[str, Subject] = {}


def _subject(
    op: str,
    call: Callable[[Tensor, str, int], Tensor],
    exactly: Callable[[Tensor], Tensor] | None = None,
    most: int = 5000,
) -> None:
    """All variants of `op` whose bits do not depend on the launch."""
    for variant in variants(op):
        if variant.guarantee < Guarantee.LAUNCH_INVARIANT:
            continue
        right = exactly if variant.guarantee is Guarantee.CORRECTLY_ROUNDED else None
        SUBJECTS[f"{op} {variant.name}"] = Subject(_bound(call, variant), right, most)


def _bound(
    call: Callable[[Tensor, str, int], Tensor], variant: Variant
) -> Callable[[Tensor, int], Tensor]:
    return lambda x, threads: call(x, variant.name, threads)


_subject("sum", lambda x, v, t: ops.sum(x, variant=v, threads=t), ops.sum_ref, most=10**5)
_subject("mean", lambda x, v, t: ops.mean(x, variant=v, threads=t), ops.mean_ref, most=10**5)
