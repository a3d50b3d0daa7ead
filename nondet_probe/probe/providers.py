"""Who computes a setting of the price list: torch's op, its deterministic mode, every variant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.env import deterministic_algorithms
from nondet_probe.ops import Guarantee, Variant, variants
from nondet_probe.ops.backends import available, offers
from nondet_probe.probe.case_inputs import Inputs
from nondet_probe.probe.cases import Case
from nondet_probe.probe.meters import Meter
from nondet_probe.records import prices

__all__ = ["Provider", "providers"]

_BASELINES = ("kahan", "pairwise")
"""There to compare accuracy with, on the CPU alone."""


@dataclass
class Provider:
    """Something that can be called for this setting, or the reason why not.

    guarantee: None for what promises nothing in our words. memory: what is said of its memory.
    """

    name: str
    call: Callable[[], Inputs]
    under: Callable[[], AbstractContextManager[object]] = nullcontext
    guarantee: Guarantee | None = None
    memory: str = ""
    why_not: str = ""
    seconds: float = 0.0
    moved: int = 0

    def result(self) -> Inputs:
        with self.under():
            return self.call()

    def try_out(self, case: Case, inputs: Inputs, meter: Meter) -> None:
        """The first two calls: what they move, or how they fail; and about how long one takes."""
        try:
            self.moved = case.moved(inputs, self.result())
            self.seconds = meter.seconds(self.result)
        except Exception as error:  # whatever it is, it is this provider's answer
            line = str(error).strip().partition("\n")[0]
            self.why_not = f"raises {type(error).__name__}: {line[:200]}"


def providers(
    case: Case, inputs: Inputs, n: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Provider]:
    """All for this case, n and dtype, on the device of the inputs."""
    yield Provider(prices.TORCH, lambda: case.torch(inputs))
    yield Provider(prices.TORCH_DETERMINISTIC, lambda: case.torch(inputs), deterministic_algorithms)
    for variant in variants(case.op):
        yield Provider(
            variant.name,
            lambda name=variant.name: case.ours(name, inputs),  # type: ignore[misc]
            guarantee=variant.guarantee,
            memory=variant.extra_memory,
            why_not=_not_on(device, variant)
            or _not_of(variant.dtypes, dtype)
            or _too_slow(case, variant.name, n),
        )
    if device.type == "cuda":
        yield from _in_triton(case, inputs, n, dtype)


def _in_triton(case: Case, inputs: Inputs, n: int, dtype: torch.dtype) -> Iterator[Provider]:
    missing = next(
        (f"triton: {one.reason}" for one in available() if one.name == "triton" and not one.usable),
        "",
    )
    for name, offer in offers("triton").get(case.op, {}).items():
        yield Provider(
            f"triton {name}",
            lambda name=name: case.ours(name, inputs, "triton"),  # type: ignore[misc]
            guarantee=offer.guarantee,
            why_not=missing or _not_of(offer.dtypes, dtype) or _too_slow(case, name, n),
        )


def _not_on(device: torch.device, variant: Variant) -> str:
    if device.type == "cpu":
        return ""
    op, offered = variant.op, offers("cuda")
    has_kernel = (
        variant.name in offered[op]
        if op in offered
        else op not in offers("triton") and variant.name not in _BASELINES
    )
    return "" if has_kernel else "has no kernel in CUDA"


def _not_of(dtypes: tuple[torch.dtype, ...], dtype: torch.dtype) -> str:
    if dtype in dtypes:
        return ""
    return f"takes {', '.join(dtype_name(one) for one in dtypes)}"


def _too_slow(case: Case, variant: str, n: int) -> str:
    most = case.most.get(variant)
    if most is None or n <= most:
        return ""
    return f"measured up to n = {most} only, since it is slow"
