"""Which way each overload goes for tensors on a GPU.

In this order: an op of the family, where its kernels are here; what computes the overload by others
that have one order; torch's deterministic mode, which is on meanwhile; torch's kernel, whose calls
are counted, with what is known of them (cuda_table.py). Devices play no part but in that table: the
same routes put before the CPU's kernels do the same there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from nondet_probe.mitigate.cuda_table import BLAS, BREAKING, STRICT, SWITCHED, Breaking, adds_up
from nondet_probe.mitigate.family import FAMILY, weakest
from nondet_probe.mitigate.measured import operator
from nondet_probe.mitigate.remade import OF_OTHERS, PAIRS, REMADE
from nondet_probe.mitigate.routes import UNKNOWN, Counter, Original, Route, by_family, counted
from nondet_probe.mitigate.switches import WORKSPACE, WORKSPACE_SETTING, not_strictly, strictly
from nondet_probe.ops.backends import available, offers
from nondet_probe.ops.registry import Guarantee

__all__ = [
    "BREAKS",
    "GIVEN_ON_CUDA",
    "KERNEL",
    "kernels_here",
    "routes_on_cuda",
    "why_no_kernels",
]

_RUN = Guarantee.RUN_TO_RUN

MODE = "torch's deterministic mode"
KERNEL = "torch's kernel"
BREAKS = "breaks: "
"""And why."""

GIVEN_ON_CUDA = {
    MODE: Guarantee.RUN_TO_RUN,
    KERNEL: Guarantee.RUN_TO_RUN,
    PAIRS: Guarantee.LAUNCH_INVARIANT,
    # Nothing is added up here.
    OF_OTHERS: Guarantee.CORRECTLY_ROUNDED,
}

_NO_WORKSPACE = Breaking(
    f"cuBLAS may add in another order on several streams: set {WORKSPACE}={WORKSPACE_SETTING} "
    "before the first product, or use the launcher"
)
_SWITCHED_OFF = BREAKS + "torch.use_deterministic_algorithms was switched off inside"
# Their relatives call the public function, which takes Triton where there is no CUDA.
_CHOOSING = {"index_add", "scatter_add"}

HasKernels = Callable[[str, str], bool]
"""Of op and variant."""


def kernels_here() -> HasKernels:
    """Whether this library can compute a variant of an op on a GPU here."""
    usable = {backend.name for backend in available() if backend.usable}

    def has_kernels(op: str, variant: str) -> bool:
        if "cuda" in usable:
            return True
        return "triton" in usable and op in _CHOOSING and variant in offers("triton").get(op, {})

    return has_kernels


def why_no_kernels() -> str | None:
    """Why this library cannot compute all of its ops on a GPU here; None where it can."""
    (cuda,) = (backend for backend in available() if backend.name == "cuda")
    return None if cuda.usable else cuda.reason


def routes_on_cuda(
    own: Iterable[str],
    composite: Iterable[str],
    guarantee: Guarantee,
    *,
    has_kernels: HasKernels,
    workspace: bool,
    watch: bool = False,
) -> dict[str, Route]:
    """The routes for `guarantee`, by overload (`aten::sum.dim_IntList`).

    own: overloads with a kernel for the device; composite: those made of others.
    workspace: whether cuBLAS was told to keep to one. watch: count torch's own kernels also where
    they are as good as was asked for.
    """
    found = {}
    for names, is_own in ((own, True), (composite, False)):
        for name in names:
            rest = None
            if guarantee > Guarantee.NONE:
                rest = _of_torch(name, is_own, workspace, watch or guarantee > _RUN)
                if name in REMADE:
                    rest = Route(_remade(*REMADE[name], rest))
            route = _of_family(name, guarantee, has_kernels, rest)
            if route is not None:
                found[name] = route
    return found


def _of_family(
    name: str, guarantee: Guarantee, has_kernels: HasKernels, rest: Route | None
) -> Route | None:
    relative = FAMILY.get(name)
    if relative is None:
        return rest
    base = operator(name)
    # All others give the same bits in every run as they are.
    if guarantee is _RUN and base not in SWITCHED and base not in BREAKING:
        return rest
    variant = weakest(relative.op, min(guarantee, relative.most))
    if variant is None or not has_kernels(relative.op, variant.name):
        return rest
    if guarantee is Guarantee.NONE and variant.guarantee > guarantee:
        return rest
    make = by_family(relative, variant.name, rest, always=True)
    return Route(make, min(variant.guarantee, relative.most))


def _of_torch(name: str, own: bool, workspace: bool, count: bool) -> Route | None:
    base = operator(name)
    if name.startswith("nondet_probe::"):
        return None
    if not name.startswith("aten::"):
        return Route(counted(UNKNOWN))
    if base in STRICT:
        return Route(_strictly)
    plain = None
    if base in SWITCHED:
        plain = Route(_under_the_mode)
    elif own and count and adds_up(name):
        plain = Route(counted(KERNEL))
    # What is made of others is theirs to tell.
    if own and base in BREAKING:
        return Route(_breaking(BREAKING[base], plain))
    if own and base in BLAS and not workspace:
        return Route(_breaking(_NO_WORKSPACE, plain))
    return plain


def _remade(
    how: str, function: Callable[..., Any], rest: Route | None
) -> Callable[[Original, Counter], Callable[..., Any]]:
    def make(original: Original, counter: Counter) -> Callable[..., Any]:
        count = counter(how)
        otherwise = rest.make(original, counter) if rest is not None else original

        def run(*args: Any, **kwargs: Any) -> Any:
            # Autograd, where it is wanted, records the overload itself.
            with torch.no_grad():
                result = function(original, *args, **kwargs)
            if result is NotImplemented:
                return otherwise(*args, **kwargs)
            count()
            return result

        return run

    return make


def _under_the_mode(original: Original, counter: Counter) -> Callable[..., Any]:
    on, off = counter(MODE), counter(_SWITCHED_OFF)

    def run(*args: Any, **kwargs: Any) -> Any:
        (on if torch.are_deterministic_algorithms_enabled() else off)()
        return original(*args, **kwargs)

    return run


def _strictly(original: Original, counter: Counter) -> Callable[..., Any]:
    count = counter(MODE)

    def run(*args: Any, **kwargs: Any) -> Any:
        count()
        with strictly():
            return original(*args, **kwargs)

    return run


def _breaking(
    known: Breaking, plain: Route | None
) -> Callable[[Original, Counter], Callable[..., Any]]:
    def make(original: Original, counter: Counter) -> Callable[..., Any]:
        count = counter(BREAKS + known.reason)
        otherwise = plain.make(original, counter) if plain is not None else original

        def run(*args: Any, **kwargs: Any) -> Any:
            if not known.applies(args, kwargs):
                return otherwise(*args, **kwargs)
            count()
            with not_strictly():
                return original(*args, **kwargs)

        return run

    return make
