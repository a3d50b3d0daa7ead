"""Every kernel in Triton, as it is compiled and what its PTX may hold: one table for all proofs.

A build is one kernel with its flags for some dtypes. What varies only by shape (LEVELS, ROWS) is
taken as a launch takes it; flags that change the arithmetic of rows go through their values from
dtype to dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nondet_probe.kernels import (
    attention,
    cross_entropy,
    layer_norm,
    matmul,
    parts,
    scatter,
    softmax,
)

__all__ = ["ARCHITECTURES", "BUILDS", "DTYPES", "Build", "Job", "jobs"]

ARCHITECTURES = (80, 90, 100)
DTYPES = {"float64": "fp64", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_WIDE = ("float64", "float32")
_NARROW = ("float32", "bfloat16", "float16")

# Names of arguments, with T for the dtype and P for what it is computed in.
_TYPES = {
    "T": "x y gradient dx weight bias source initial result a b query key value",
    "P": "statistics gamma beta losses weights whole parts sums total logs along",
    "i64": "index target most totals",
    "i32": "flags turns",
}
_POINTERS = {name: kind for kind, names in _TYPES.items() for name in names.split()}


@dataclass(frozen=True)
class Build:
    """A kernel with its flags.

    flags: the constexpr arguments; a list goes through its values from dtype to dtype.
    pointers: types of arguments, where they are not those of their names.
    atomics: (operation, type) in PTX, T and P as above; none is the default.
    fused: whether multiply-adds are wanted (None: of no concern). exact: whether every operation
    must be rounded to nearest.
    """

    kernel: Any
    flags: Mapping[str, Any]
    dtypes: tuple[str, ...] = tuple(DTYPES)
    pointers: Mapping[str, str] = field(default_factory=dict)
    atomics: tuple[tuple[str, str], ...] = ()
    fused: bool | None = False
    exact: bool = True
    num_warps: int = 4

    @property
    def name(self) -> str:
        variant = self.flags.get("VARIANT", "")
        order = {True: "in_order", False: "tree"}.get(self.flags.get("IN_ORDER"), "")
        return "-".join(filter(None, (self.kernel.fn.__name__, variant, order)))


@dataclass(frozen=True)
class Job:
    """One build for one dtype."""

    build: Build
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.build.name}-{self.dtype}"

    def declared(self, architecture: int) -> set[tuple[str, str]]:
        """Atomics that its PTX must hold."""
        short = {"float64": "f64", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}
        wide = "f64" if self.dtype == "float64" else "f32"
        types = {"T": short[self.dtype], "P": wide}
        found = {(operation, types.get(kind, kind)) for operation, kind in self.build.atomics}
        if architecture < 90 and ("add", "bf16") in found:
            # There is no such instruction yet: a loop of compare-and-swap.
            found = {("cas", "b32")}
        return found

    def source(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Signature and constants, as `triton.compiler.ASTSource` takes them."""
        turn = list(DTYPES).index(self.dtype)
        constants = {
            name: value[turn % len(value)] if isinstance(value, list) else value
            for name, value in self.build.flags.items()
        }
        wide = "fp64" if self.dtype == "float64" else "fp32"
        signature = {}
        for name in self.build.kernel.arg_names:
            kind = self.build.pointers.get(name) or _POINTERS.get(name)
            if name in constants:
                signature[name] = "constexpr"
            elif name == "scale":
                signature[name] = "fp32"
            elif kind is None:
                signature[name] = "i32"
            else:
                kind = {"T": DTYPES[self.dtype], "P": wide}.get(kind, kind)
                signature[name] = f"*{kind}"
        return signature, constants


_ROWS: dict[str, Any] = {"ROWS": 4, "LEVELS": 2}
_FLIP, _FLOP = [True, False], [False, True]
_OVER_ROWS = ("atomic", "two_pass", "fixed_order")
_TILES = {"BLOCK_D": 32, "D": 24, "CAUSAL": _FLIP}
_ENTROPY: dict[str, Any] = {"KEPT": 0.875, "SHARE": 0.0125, "WEIGHT": _FLIP, "ROWS": 4}


def _added(variant: str, kind: str) -> tuple[tuple[str, str], ...]:
    return (("add", kind),) if variant in {"atomic", "splitk_atomic"} else ()


BUILDS = [
    Build(softmax.softmax_rows, {"LOG": _FLIP, **_ROWS}),
    Build(softmax.softmax_backward_rows, {"LOG": _FLOP, **_ROWS}),
    Build(
        layer_norm.norm_rows,
        {"EPS": 1e-5, "CENTRED": _FLIP, "WEIGHT": [True], "BIAS": _FLIP, **_ROWS},
    ),
    Build(layer_norm.norm_backward_rows, {"CENTRED": _FLOP, "WEIGHT": [True], **_ROWS}),
    *(
        Build(
            layer_norm.norm_parameters,
            {"VARIANT": variant, "CENTRED": True, "BLOCK": 128},
            atomics=_added(variant, "P"),
        )
        for variant in _OVER_ROWS
    ),
    *(
        Build(
            parts.chunk_sums,
            {"VARIANT": variant},
            dtypes=_WIDE,
            atomics=_added(variant, "P"),
            num_warps=1,
        )
        for variant in _OVER_ROWS
    ),
    *(
        Build(
            parts.fold_parts,
            {"IN_ORDER": in_order, "LEVELS": 1 if in_order else 8, "BLOCK": 128},
            pointers={"out": "T"},
        )
        for in_order in (True, False)
    ),
    Build(cross_entropy.entropy_rows, {"SMOOTH": _FLIP, "LEVELS": 2, **_ENTROPY}),
    Build(
        cross_entropy.entropy_backward_rows,
        {"SMOOTH": _FLIP, "REDUCTION": ["mean", "none", "sum", "mean"], **_ENTROPY},
        pointers={"weights": "fp64"},
    ),
    Build(cross_entropy.finish_loss, {"MEAN": True}, pointers={"weights": "fp64"}, num_warps=1),
    Build(scatter.largest_element, {"BLOCK": 512}, atomics=(("max", "s64"),)),
    Build(
        scatter.scatter_rows,
        {"VARIANT": "atomic", "BLOCK": 512},
        pointers={"out": "T"},
        atomics=(("add", "T"),),
        fused=None,  # sm_80 adds bfloat16 as x * 1 + y
    ),
    Build(
        scatter.scatter_rows,
        {"VARIANT": "fixed_point", "BLOCK": 512},
        pointers={"out": "i64"},
        atomics=(("add", "u64"), ("or", "b32")),
    ),
    Build(scatter.finish_fixed, {"BLOCK": 512}),
    *(
        Build(
            matmul.product_tiles,
            {
                "VARIANT": variant,
                "CHAIN": chain,
                "BLOCK_K": 256,
                "BLOCK_M": side,
                "BLOCK_N": side,
                "STEP": 32,
            },
            dtypes=dtypes,
            pointers={"out": "T" if variant == "fixed_split" else "P"},
            atomics=_added(variant, "P"),
            fused=chain or None,
        )
        for variant in ("splitk_atomic", "splitk_ordered", "fixed_split")
        for chain, side, dtypes in ((True, 32, _WIDE), (False, 64, ("bfloat16", "float16")))
    ),
    *(
        Build(
            attention.attention_rows,
            {"BLOCK_M": side, "BLOCK_N": side, **_TILES},
            dtypes=dtypes,
            pointers={"out": "T"},
            fused=None,
            exact=False,
        )
        for side, dtypes in ((32, ("float32",)), (64, ("bfloat16", "float16")))
    ),
    Build(
        attention.gradient_along,
        {"D": 24, "BLOCK_M": 64, "BLOCK_D": 32},
        dtypes=_NARROW,
        pointers={"out": "T"},
        fused=None,
    ),
    *(
        Build(
            attention.attention_backward,
            {"VARIANT": variant, "BLOCK_M": side, "BLOCK_N": side, **_TILES},
            dtypes=dtypes,
            pointers={"dq": "P", "dk": "T", "dv": "T"},
            atomics={
                "atomic": (("add", "f32"),),
                "semaphore_ordered": (("exch", "b32"),),
                "split_buffers": (),
            }[variant],
            fused=None,
            exact=False,
        )
        for variant in ("atomic", "semaphore_ordered", "split_buffers")
        for side, dtypes in ((32, ("float32",)), (64, ("bfloat16", "float16")))
    ),
]


def jobs() -> Iterator[Job]:
    """Every build for every dtype it claims."""
    for build in BUILDS:
        for dtype in build.dtypes:
            yield Job(build, dtype)
