"""An op that is not there, with variants that break what they promise, for the price list."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from nondet_probe.ops import Guarantee, Variant, registry
from nondet_probe.probe.cases import CASES, Case

PROMISES = {
    "free": Guarantee.NONE,
    "wobbling": Guarantee.RUN_TO_RUN,
    "threaded": Guarantee.LAUNCH_INVARIANT,
    "steady": Guarantee.ORDER_INVARIANT,
    "exact": Guarantee.CORRECTLY_ROUNDED,
    "failing": Guarantee.NONE,
    "slow": Guarantee.NONE,
    "doubles": Guarantee.NONE,
}


def _variant(name: str, guarantee: Guarantee) -> Variant:
    dtypes = (torch.float64,) if name == "doubles" else (torch.float32, torch.float64)
    text = f"of {name}"
    return Variant("planted", name, guarantee, False, False, text, text, text, dtypes, text)


def _one_ulp_up(x: Tensor) -> Tensor:
    return torch.nextafter(x, x + 1)


def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the op `planted`, which doubles its input, and its case, for one test.

    free and wobbling: every third result is an ulp up in its first element; threaded: all elements
    are, with more than one thread; steady: all elements always two ulps down. torch's counterpart
    raises in deterministic mode.
    """
    turn = itertools.count()

    def ours(x: Tensor, variant: str) -> Tensor:
        result = x * 2
        if variant in ("free", "wobbling") and next(turn) % 3 == 2:
            result[0] = _one_ulp_up(result[0])
        if variant == "threaded" and torch.get_num_threads() > 1:
            result = _one_ulp_up(result)
        if variant == "steady":
            result = torch.nextafter(torch.nextafter(result, result - 1), result - 1)
        if variant == "failing":
            raise ArithmeticError("the planted failure\nand more")
        return result

    def theirs(x: Tensor) -> Tensor:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("planted does not have a deterministic implementation")
        return x * 2

    found = {name: _variant(name, promise) for name, promise in PROMISES.items()}
    monkeypatch.setitem(registry._VARIANTS, "planted", found)
    monkeypatch.setattr("nondet_probe.ops.planted", ours, raising=False)
    case = Case(
        "planted",
        "n elements, doubled",
        "x * 2",
        lambda n, dtype: (torch.linspace(1, 1.5, n, dtype=dtype),),
        theirs,
        most={"slow": 10},
    )
    monkeypatch.setitem(CASES, "planted", (case,))
