"""Where an op can run: which backends there are, which are usable here, and what each offers.

The CPU is not asked about here unless somebody names a backend or brings a tensor from elsewhere:
its calls cost what they did. A backend that is asked for is the one that runs, or an error.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from nondet_probe.bits.device import why_not
from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.ops.registry import Guarantee

__all__ = ["BACKENDS", "Backend", "Offer", "available", "kernels", "offers"]

BACKENDS = ("cpu", "cuda", "triton")
# Of those that offer a variant, the first usable one takes a tensor on cuda.
_ON_CUDA = ("cuda", "triton")
_OLDEST_TRITON = (3, 6)


@dataclass(frozen=True)
class Backend:
    """A backend as it is here. reason: why it is not usable, or what it is if it is; one line."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True)
class Offer:
    """What a backend makes of a variant.

    dtypes: those taken. bits_of_cpu: those whose results have the bits of the CPU's variant, and
    with them its guarantee. guarantee: what the others have; it may be less.
    """

    guarantee: Guarantee
    dtypes: tuple[torch.dtype, ...]
    bits_of_cpu: tuple[torch.dtype, ...] = ()


_NONE, _RUN, _LAUNCH = Guarantee.NONE, Guarantee.RUN_TO_RUN, Guarantee.LAUNCH_INVARIANT
_WIDE = (torch.float64, torch.float32)
_SHORT = (torch.bfloat16, torch.float16)
_ALL = (*_WIDE, *_SHORT)
_IN_ROWS = {"fixed_order": Offer(_LAUNCH, _ALL, _ALL)}
_OVER_ROWS = {
    "atomic": Offer(_NONE, _ALL),
    "two_pass": Offer(_RUN, _ALL),
    "fixed_order": Offer(_LAUNCH, _ALL, _ALL),
}
_INTO_A_TABLE = {
    "atomic": Offer(_NONE, _ALL),
    "fixed_point": Offer(Guarantee.ORDER_INVARIANT, _ALL, _ALL),
}
_IN_ATTENTION = (torch.float32, *_SHORT)

# op: variant: what it is in Triton. docs/triton.md.
_IN_TRITON: Mapping[str, Mapping[str, Offer]] = {
    "softmax": _IN_ROWS,
    "log_softmax": _IN_ROWS,
    "layer_norm": _OVER_ROWS,
    "rms_norm": _OVER_ROWS,
    "cross_entropy": _OVER_ROWS,
    "index_add": _INTO_A_TABLE,
    "scatter_add": _INTO_A_TABLE,
    "matmul": {
        "splitk_atomic": Offer(_NONE, _ALL),
        "splitk_ordered": Offer(_RUN, _ALL, _WIDE),
        "fixed_split": Offer(_RUN, _ALL, _WIDE),
    },
    "attention": {
        "split_buffers": Offer(_RUN, _IN_ATTENTION),
        "semaphore_ordered": Offer(_RUN, _IN_ATTENTION),
        "atomic": Offer(_NONE, _IN_ATTENTION),
    },
}
_ALL_OVER_ROWS = _OVER_ROWS | {"exact": Offer(Guarantee.CORRECTLY_ROUNDED, _ALL, _ALL)}
_ALL_INTO_A_TABLE = _INTO_A_TABLE | {
    "ordered": Offer(_LAUNCH, _ALL, _ALL),
    "exact": Offer(Guarantee.CORRECTLY_ROUNDED, _ALL, _ALL),
}
# The same in CUDA, of the ops that have a choice. docs/cuda.md has them all.
_IN_CUDA: Mapping[str, Mapping[str, Offer]] = {
    "softmax": _IN_ROWS,
    "log_softmax": _IN_ROWS,
    "layer_norm": _ALL_OVER_ROWS,
    "rms_norm": _ALL_OVER_ROWS,
    "cross_entropy": _ALL_OVER_ROWS,
    "index_add": _ALL_INTO_A_TABLE,
    "scatter_add": _ALL_INTO_A_TABLE,
    "matmul": {
        "splitk_atomic": Offer(_NONE, _ALL),
        "splitk_ordered": Offer(_LAUNCH, _ALL, _ALL),
        "fixed_split": Offer(_LAUNCH, _ALL, _ALL),
        "exact": Offer(Guarantee.CORRECTLY_ROUNDED, _ALL, _ALL),
    },
}
_OFFERS: Mapping[str, Mapping[str, Mapping[str, Offer]]] = {
    "cuda": _IN_CUDA,
    "triton": _IN_TRITON,
}


def _cuda_is_missing() -> str:
    """Why this build has no kernels in CUDA; "" where it has."""
    if importlib.util.find_spec("nondet_probe._cuda") is None:
        return (
            "is not in this build; where nvcc is: NONDET_PROBE_CUDA=1 pip install "
            "--no-build-isolation nondet-probe"
        )
    return ""


def _triton_is_missing() -> str:
    """Why the kernels in Triton cannot be loaded; "" where they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install 'nondet_probe[triton]'"
    version = importlib.metadata.version("triton")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_TRITON:
        return f"triton {version} is too old; pip install 'nondet_probe[triton]'"
    if importlib.util.find_spec("nondet_probe.kernels") is None:
        return (
            "nondet_probe.kernels is missing: a source checkout shadows the install; run pip "
            "install -e . --no-build-isolation"
        )
    return ""


# Once, here: torch.compile could not look through these.
_MISSING = {"cuda": _cuda_is_missing(), "triton": _triton_is_missing()}
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def available() -> list[Backend]:
    """Every backend: whether it is usable in this process, and why not."""
    return [Backend("cpu", True, "the compiled extension"), _cuda(), _triton()]


def _cuda() -> Backend:
    missing = _MISSING["cuda"]
    if missing:
        return Backend("cuda", False, missing)
    reason = why_not()
    return Backend("cuda", reason is None, reason or "the compiled extension for GPUs")


def _triton() -> Backend:
    missing = _MISSING["triton"]
    if missing:
        return Backend("triton", False, missing)
    version = f"triton {importlib.metadata.version('triton')}"
    if _INTERPRETED:
        return Backend("triton", True, f"{version}, interpreted, on cpu (TRITON_INTERPRET=1)")
    if not torch.cuda.is_available():
        built = "sees no GPU" if torch.version.cuda else "is built without CUDA"
        return Backend("triton", False, f"{version} is installed; torch {built}")
    return Backend("triton", True, version)


def offers(backend: str) -> Mapping[str, Mapping[str, Offer]]:
    """What a backend other than the CPU offers, by op and variant. UnknownNameError for others."""
    if backend not in _OFFERS:
        raise unknown_name("backend with offers of its own", backend, _OFFERS)
    return _OFFERS[backend]


def kernels(
    op: str,
    variant: str,
    backend: str | None,
    x: Tensor,
    *others: Tensor | None,
    threads: int | None = None,
) -> ModuleType | None:
    """The module that runs `op` for x: `via_triton`; None for the op's own way, which goes by the
    device of x.

    others: what else is computed with; it must be where x is. To be called where a backend was
    named or x is not on the CPU. Raises UnknownNameError for an unknown backend; UsageError where
    the backend cannot be loaded, does not offer the variant, or threads are given for it; TypeError
    where it does not take the device or dtype of x.
    """
    if backend is not None and backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    if backend == "cpu" or (backend is None and not x.is_cuda):
        return None  # which refuses tensors that are not there
    if backend is None:
        backend = _first_on_cuda(op, variant)
    _check(op, variant, backend, x)
    for other in others:
        if other is not None and other.device != x.device:
            raise TypeError(
                f"{op} takes tensors on one device, got {x.device} and {other.device}; move one"
            )
    if threads is not None:
        raise UsageError(f"{op}: threads are the CPU's; backend {backend!r} takes none")
    if backend == "cuda":
        return None
    from nondet_probe.ops import via_triton

    return via_triton


def _first_on_cuda(op: str, variant: str) -> str:
    for name in _ON_CUDA:
        if variant in _OFFERS[name].get(op, {}) and not _MISSING[name]:
            return name
    reasons = "; ".join(f"{name}: {_no_offer(name, op, variant)}" for name in _ON_CUDA)
    raise TypeError(f"{op} variant {variant!r} takes no tensor on cuda ({reasons}); pass x.cpu()")


def _no_offer(backend: str, op: str, variant: str) -> str:
    known = _OFFERS[backend].get(op)
    if known is None:
        return f"has no {op}; it has {', '.join(_OFFERS[backend])}"
    if variant not in known:
        return f"has no variant {variant!r} of {op}; it has {', '.join(known)}"
    return _MISSING[backend]


def _check(op: str, variant: str, backend: str, x: Tensor) -> None:
    offer = _OFFERS[backend].get(op, {}).get(variant)
    if offer is None or _MISSING[backend]:
        raise UsageError(
            f"{op} variant {variant!r}: backend {backend!r} {_no_offer(backend, op, variant)}"
        )
    if not x.is_cuda and not (backend == "triton" and _INTERPRETED and x.is_cpu):
        raise TypeError(
            f"{op} variant {variant!r}: backend {backend!r} takes tensors on cuda, got one on "
            f"{x.device}; pass x.cuda(), or backend='cpu'"
        )
    if x.layout is not torch.strided:
        raise TypeError(f"{op} takes dense tensors, got layout {x.layout}; pass x.to_dense()")
    if x.dtype not in offer.dtypes:
        names = ", ".join(dtype_name(dtype) for dtype in offer.dtypes)
        raise TypeError(
            f"{op} variant {variant!r}: backend {backend!r} takes {names}; got "
            f"{dtype_name(x.dtype)}; convert it first"
        )
