"""Every kernel compiles for three architectures without a GPU, and its PTX keeps what it promises.

Compiled as Inductor would, with leave to fuse: a format that survives that survives everything.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed (requirements-dev.txt)")

import triton
import triton.language as tl
from ptx import (
    Function,
    atomics_other_than,
    float_atomics,
    flushed,
    functions,
    fused,
    inexact_operations,
)
from triton_ahead import compile_all, compile_one
from triton_table import ARCHITECTURES, BUILDS, Job, jobs

from nondet_probe.ops import backends
from nondet_probe.ops.registry import Guarantee

JOBS = list(jobs())
KERNELS = Path(__file__).parents[2] / "kernels"


@pytest.fixture(scope="module")
def compiled() -> dict[tuple[str, int], str]:
    return compile_all()


def entry(ptx: str) -> Function:
    (only,) = (function for function in functions(ptx).values() if function.entry)
    return only


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_it_compiles_and_keeps_the_rules(job: Job, compiled: dict[tuple[str, int], str]) -> None:
    for architecture in ARCHITECTURES:
        ptx = compiled[job.name, architecture]
        assert f".target sm_{architecture}" in ptx, ptx[-3000:]
        kernel = entry(ptx)
        assert atomics_other_than(kernel, job.declared(architecture)) == []
        if job.build.exact:
            assert inexact_operations(kernel) == []
            assert flushed(kernel) == []
        if job.build.fused is not None:
            assert bool(fused(kernel)) == job.build.fused


@pytest.mark.parametrize(
    "job", [job for job in JOBS if job.dtype == "float32"], ids=lambda job: job.name
)
def test_wide_accesses_keep_the_rules(job: Job) -> None:
    ptx = compile_one(job.build.kernel, *job.source(), 90, job.build.num_warps, aligned=True)
    kernel = entry(ptx)
    assert atomics_other_than(kernel, job.declared(90)) == []
    if job.build.exact:
        assert inexact_operations(kernel) == []
    if job.build.fused is not None:
        assert bool(fused(kernel)) == job.build.fused


def test_only_atomic_variants_declare_atomics_on_floats() -> None:
    with_floats = {job.build.flags["VARIANT"] for job in JOBS if job.declared(90) & FLOAT_ADDS}
    assert with_floats == {"atomic", "splitk_atomic"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_turns_are_taken_and_given_in_order(
    architecture: int, compiled: dict[tuple[str, int], str]
) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        ptx = compiled[f"attention_backward-semaphore_ordered-{dtype}", architecture]
        instructions = " ".join(entry(ptx).instructions)
        assert "acquire" in instructions
        assert "release" in instructions
    assert "acquire" not in compiled["attention_backward-atomic-float32", architecture]


FLOAT_ADDS = {("add", kind) for kind in ("f64", "f32", "bf16", "f16")}


def kernels_of(path: Path) -> set[str]:
    """Functions that are launched: those that return nothing."""
    return {
        node.name
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and not any(isinstance(inner, ast.Return) for inner in ast.walk(node))
    }


def test_no_kernel_is_missing_from_the_table() -> None:
    written = {name for path in KERNELS.glob("*.py") for name in kernels_of(path)}
    assert written == {build.kernel.fn.__name__ for build in BUILDS}


def test_dtypes_are_those_that_are_offered() -> None:
    offers = backends.offers("triton")
    for op, kernel in (
        ("softmax", "softmax_rows"),
        ("layer_norm", "norm_parameters"),
        ("cross_entropy", "entropy_rows"),
        ("index_add", "scatter_rows"),
        ("matmul", "product_tiles"),
        ("attention", "attention_backward"),
    ):
        builds = [job for job in JOBS if job.build.kernel.fn.__name__ == kernel]
        for variant, offer in offers[op].items():
            claimed = {str(dtype).removeprefix("torch.") for dtype in offer.dtypes}
            of_variant = [
                job for job in builds if job.build.flags.get("VARIANT", variant) == variant
            ]
            assert {job.dtype for job in of_variant} == claimed


# ---- planted offences, compiled


@triton.jit
def fuses(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    tl.store(y + at, value * value + value, mask=at < n)


@triton.jit
def adds_atomically(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.atomic_add(y + at, tl.load(x + at, mask=at < n), mask=at < n)


@triton.jit
def divides(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    tl.store(y + at, tl.exp(value) / value, mask=at < n)


@pytest.mark.parametrize(
    ("kernel", "rule"),
    [
        (fuses, fused),
        (adds_atomically, float_atomics),
        (adds_atomically, lambda function: atomics_other_than(function, ())),
        (divides, inexact_operations),
    ],
    ids=["fuses", "adds_atomically", "undeclared", "divides"],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_compiled_offence_is_found(
    kernel: object, rule: Callable[[Function], list[str]], architecture: int
) -> None:
    signature = {"x": "*fp32", "y": "*fp32", "n": "i32", "BLOCK": "constexpr"}
    ptx = compile_one(kernel, signature, {"BLOCK": 128}, architecture)
    assert rule(entry(ptx)) != []


def test_without_leave_nothing_is_fused() -> None:
    signature = {"x": "*fp32", "y": "*fp32", "n": "i32", "BLOCK": "constexpr"}
    assert fused(entry(compile_one(fuses, signature, {"BLOCK": 128}, 90, fusion=False))) == []


# ---- orders that are not the compiler's to choose

FORMATS = ["cross_entropy.py", "layer_norm.py", "order.py", "parts.py", "scatter.py", "softmax.py"]
REDUCING = {"sum", "reduce", "cumsum", "dot", "associative_scan", "xor_sum"}


def reductions(source: str) -> list[str]:
    """Calls of tl whose order of additions depends on how many warps share the work."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "tl"
        and node.func.attr in REDUCING
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_write_out_their_additions(name: str) -> None:
    found = reductions((KERNELS / name).read_text("utf-8"))
    # It adds one number to -0.0s.
    assert len(found) == (1 if name == "order.py" else 0)
    if found:
        from nondet_probe.kernels import order

        assert "tl.sum" in inspect.getsource(order._slot.fn)


def test_a_reduction_is_found() -> None:
    assert len(reductions("total = tl.sum(x, axis=1) + tl.dot(a, b)")) == 2


def test_launch_invariance_is_claimed_for_formats_alone() -> None:
    for op, variants in backends.offers("triton").items():
        for variant, offer in variants.items():
            if offer.guarantee >= Guarantee.LAUNCH_INVARIANT:
                assert offer.bits_of_cpu == offer.dtypes, (op, variant)


@pytest.mark.parametrize("num_warps", [1, 2, 8])
def test_other_launches_keep_the_rules(num_warps: int) -> None:
    for name in ("softmax_rows-float32", "norm_parameters-fixed_order-float64"):
        (job,) = (job for job in JOBS if job.name == name)
        kernel = entry(compile_one(job.build.kernel, *job.source(), 90, num_warps))
        assert atomics_other_than(kernel, ()) == []
        assert fused(kernel) == inexact_operations(kernel) == []
