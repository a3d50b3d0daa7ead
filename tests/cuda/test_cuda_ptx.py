"""Every CUDA source compiles for every architecture, and its PTX has no atomic and no fused
multiplication that is not declared."""

from __future__ import annotations

import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cuda_ptx import entries, offences
from nvcc import ARCHITECTURES, CSRC, ptx_of

SOURCES = sorted(CSRC.glob("*.cu"))

# In f64 where elements are double, else in f32.
DECLARED = {
    "segment_sum": {
        r"segment_add<double, \(ndp::SegmentVariant\)0,": frozenset({"add.f64"}),
        r"segment_add<(float|ndp::\w+), \(ndp::SegmentVariant\)0,": frozenset({"add.f32"}),
    },
    "scatter": {
        r"scatter_atomic<double>": frozenset({"add.f64"}),
        r"scatter_atomic<float>": frozenset({"add.f32"}),
        r"scatter_atomic<ndp::\w+>": frozenset({"cas.b16"}),
    },
    "sum": {
        r"sum_parts<double, \(ndp::SumVariant\)0>": frozenset({"add.f64"}),
        r"sum_parts<(float|ndp::\w+), \(ndp::SumVariant\)0>": frozenset({"add.f32"}),
    },
    "softmax": {
        r"entropy_atomic<double>": frozenset({"add.f64"}),
        r"entropy_atomic<float>": frozenset({"add.f32"}),
    },
    "layer_norm": {
        r"norm_(backward|columns)<double,.* \(ndp::Columns\)2>": frozenset({"add.f64"}),
        r"norm_(backward|columns)<(float|ndp::\w+),.* \(ndp::Columns\)2>": frozenset({"add.f32"}),
    },
    "matmul": {
        r"matmul_tiles<double, \(ndp::MatmulVariant\)0>": frozenset({"add.f64"}),
        r"matmul_tiles<(float|ndp::\w+), \(ndp::MatmulVariant\)0>": frozenset({"add.f32"}),
    },
}

# Where one is part of the format, or of a proof: what the rounding of a product took.
FUSED = {
    "dot": [r"dot_exact<double>"],
    "matmul": [r"matmul_tiles<", r"matmul_exact<double>"],
}


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """All at once, on all processors; what is wrong is said by the test of the source."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.suppress(AssertionError):
        list(pool.map(ptx_of, *zip(*itertools.product(SOURCES, ARCHITECTURES), strict=True)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_float_atomic_or_fma_is_hidden(source: Path, architecture: str) -> None:
    found = entries(ptx_of(source, architecture))
    assert found
    assert offences(found, DECLARED.get(source.stem, {}), FUSED.get(source.stem, ())) == []


def test_offences_are_found() -> None:
    found = entries(ptx_of(Path(__file__).with_name("planted.cu"), "90"))
    declared = {"no_barrier": frozenset({"add.f32"}), "absent": frozenset()}
    said = offences(found, declared, ["half_a_barrier"])
    assert len(said) == 5, said
    assert any("half_a_barrier" in line and "0 fused" in line for line in said)
    assert any("hidden_atomic_add" in line and "['add.f32'], declared []" in line for line in said)
    assert any("hidden_fma" in line and "1 fused" in line for line in said)
    assert any("no_barrier" in line and "declared ['add.f32']" in line for line in said)
    assert "no kernel is called absent" in said


@pytest.mark.parametrize(
    ("line", "atomics", "fused"),
    [
        ("red.global.add.f32 \t[%rd1], %f1;", {"add.f32"}, 0),
        ("@%p3 atom.shared.add.noftz.bf16x2 %r1, [%rd1], %r2;", {"add.bf16x2"}, 0),
        ("atom.global.gpu.relaxed.add.f64 %fd1, [%rd1], %fd2;", {"add.f64"}, 0),
        ("atom.global.add.u64 %rd1, [%rd1], %rd2;", set(), 0),
        ("atom.shared.or.b32 %r1, [%r2], 1;", set(), 0),
        ("@!%p1 fma.rn.f32 %f1, %f2, %f3, %f4;", set(), 1),
        ("ld.shared.f32 %f1, [%r1];", set(), 0),
    ],
)
def test_instructions_are_told_apart(line: str, atomics: set[str], fused: int) -> None:
    (entry,) = entries(f".visible .entry kernel()\n{{\n\t{line}\n}}")
    assert (entry.name, set(entry.float_atomics), entry.fused) == ("kernel", atomics, fused)
