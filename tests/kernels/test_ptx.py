"""The rules on PTX, each seen to fire on a planted offence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ptx import (
    Function,
    atomics_other_than,
    float_atomics,
    flushed,
    functions,
    fused,
    inexact_operations,
)

MODULE = """
.version 8.7
.target sm_90a
.extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);
// atom.add.f32 in a comment
.func (.param .b32 func_retval0) helper(
  .param .b32 p) {{
  mul.lo.s32 %r1, %r2, %r3;
  ret;
}}
.visible .entry kernel(
  .param .u64 .ptr .global .align 1 p0
)
.reqntid 128
{{
  .reg .b32 %f<9>;
  mad.lo.s32 %r1, %r2, %r3, %r4;
  {{ mov.b32 %r0, %r1; }}
  @%p1 {planted} ;
  add.rn.f32 %f1, %f2, %f3;
  atom.global.gpu.relaxed.add.u64 %rd1, [%rd2], %rd3;
  ret;
}}
.visible .entry other() {{ ret; }}
"""


def kernel(planted: str) -> Function:
    return functions(MODULE.format(planted=planted))["kernel"]


def declared_integers(function: Function) -> list[str]:
    return atomics_other_than(function, {("add", "u64")})


def test_a_module_is_taken_apart() -> None:
    found = functions(MODULE.format(planted="mov.u32 %r1, %r2"))
    assert {name: function.entry for name, function in found.items()} == {
        "helper": False,
        "kernel": True,
        "other": True,
    }
    assert found["kernel"].atomics == {("add", "u64"): 1}
    assert found["kernel"].instructions["add.rn.f32"] == 1
    assert found["helper"].instructions["mul.lo.s32"] == 1
    assert not found["other"].atomics


# rule: what it must find
PLANTED: dict[Callable[[Function], list[str]], list[str]] = {
    float_atomics: [
        "red.global.gpu.relaxed.add.f32 [%rd1], %f1",
        "red.add.noftz.bf16x2 [%rd1], %r1",
        "atom.global.add.v4.f32 {%f1,%f2,%f3,%f4}, [%rd1], {%f1,%f2,%f3,%f4}",
        "atom.shared::cta.add.f64 %fd1, [%rd1], %fd2",
        "atom.global.cas.b32 %r1, [%rd1], %r2, %r3",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%rd1], [%r1], 16",
    ],
    declared_integers: [
        "red.global.add.f32 [%rd1], %f1",
        "atom.global.gpu.relaxed.add.u32 %r1, [%rd1], %r2",
        "atom.global.or.b32 %r1, [%rd1], %r2",
    ],
    fused: [
        "fma.rn.f32 %f1, %f2, %f3, %f4",
        "fma.rn.f64 %fd1, %fd2, %fd3, %fd4",
        "fma.rn.f32x2 %rd1, %rd2, %rd3, %rd4",
        "fma.rn.bf16x2 %r1, %r2, %r3, %r4",
        "mad.rn.f32 %f1, %f2, %f3, %f4",
    ],
    inexact_operations: [
        "ex2.approx.ftz.f32 %f1, %f2",
        "div.full.f32 %f1, %f2, %f3",
        "div.approx.f32 %f1, %f2, %f3",
        "sqrt.approx.f32 %f1, %f2",
        "rcp.approx.ftz.f64 %fd1, %fd2",
        "tanh.approx.f32 %f1, %f2",
    ],
    flushed: ["add.ftz.f32 %f1, %f2, %f3", "cvt.rn.ftz.f16.f32 %h1, %f1"],
}


@pytest.mark.parametrize(
    ("rule", "instruction"),
    [(rule, text) for rule, texts in PLANTED.items() for text in texts],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_planted_offence_is_found(
    rule: Callable[[Function], list[str]], instruction: str
) -> None:
    assert len(rule(kernel(instruction))) == 1


@pytest.mark.parametrize(
    "instruction",
    [
        "mad.lo.s32 %r1, %r2, %r3, %r4",
        "mad.wide.u32 %rd1, %r2, %r3, %rd4",
        "mul.rn.f32 %f1, %f2, %f3",
        "div.rn.f32 %f1, %f2, %f3",
        "sqrt.rn.f64 %fd1, %fd2",
        "redux.sync.add.s32 %r1, %r2, %r3",
        "atom.global.gpu.relaxed.add.u64 %rd1, [%rd2], %rd3",
        "mov.b32 %fma, %r1",
    ],
)
@pytest.mark.parametrize("rule", PLANTED, ids=lambda rule: rule.__name__)
def test_what_is_allowed_is_not_found(
    rule: Callable[[Function], list[str]], instruction: str
) -> None:
    assert rule(kernel(instruction)) == []


def test_a_declared_atomic_that_is_missing_is_found() -> None:
    assert (
        len(atomics_other_than(kernel("mov.u32 %r1, %r2"), {("add", "u64"), ("add", "f32")})) == 1
    )
