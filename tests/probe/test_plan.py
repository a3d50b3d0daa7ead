"""Which ops are executed again, which not, and why."""

from __future__ import annotations

import offences  # noqa: F401  # registers the custom ops
import pytest
import torch

from nondet_probe.probe.plan import Treatment, plan_of

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("op", "treatment"),
    [
        (aten.mm.default, Treatment.RERUN),
        (aten.zeros.default, Treatment.RERUN),
        (aten.empty_like.default, Treatment.ALLOCATION),
        (aten.new_empty_strided.default, Treatment.ALLOCATION),
        (aten.resize_.default, Treatment.ALLOCATION),
        (aten.view.default, Treatment.VIEW),
        (aten.detach.default, Treatment.VIEW),
        (aten.transpose_.default, Treatment.VIEW),
        (aten.set_.source_Tensor, Treatment.NOT_COVERED),
        (torch.ops._c10d_functional.all_reduce.default, Treatment.NOT_COVERED),
        (torch.ops.higher_order.cond, Treatment.NOT_COVERED),
        (torch.ops.ndp_test.steady.default, Treatment.RERUN),
    ],
    ids=str,
)
def test_treatment(op: object, treatment: Treatment) -> None:
    plan = plan_of(op)
    assert plan.treatment is treatment
    assert bool(plan.reason) is (treatment is Treatment.NOT_COVERED)


def test_allocations_are_known_by_exact_name_only() -> None:
    empty_in_the_name = [
        name
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::") and "empty" in name
    ]
    op = aten._empty_affine_quantized.default
    assert op._schema.name in empty_in_the_name
    assert plan_of(op).treatment is Treatment.RERUN


def test_written_operands_come_from_the_schema() -> None:
    assert plan_of(aten.add_.Tensor).written == ((0, "self"),)
    assert plan_of(aten.add.out).written == ((3, "out"),)
    assert plan_of(aten._foreach_add_.List).written == ((0, "self"),)
    written = [name for _, name in plan_of(aten._fused_adam_.default).written]
    assert written == ["self", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"]
    assert plan_of(torch.ops.ndp_test.wobble_.default).written == ((0, "x"),)


def test_batch_norm_writes_more_than_its_schema_says() -> None:
    written = [name for _, name in plan_of(aten.native_batch_norm.default).written]
    assert written == ["running_mean", "running_var"]


def test_workspace_for_the_backward_pass_is_not_compared() -> None:
    assert plan_of(aten._ctc_loss.default).new == (0,)
    assert plan_of(aten.mkldnn_rnn_layer.default).new == (0, 1, 2)
    assert plan_of(aten.native_batch_norm.default).new == (0, 1, 2)


def test_only_what_may_draw_has_its_streams_put_back() -> None:
    assert plan_of(aten.bernoulli_.float).draws
    assert plan_of(aten.native_dropout.default).draws
    assert plan_of(torch.ops.ndp_test.steady.default).draws
    assert not plan_of(aten.mm.default).draws


def test_every_aten_op_with_a_generator_may_draw() -> None:
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::"):
            base, _, overload = name.removeprefix("aten::").partition(".")
            op = getattr(getattr(aten, base), overload or "default")
            if "Generator" in str(op._schema) and plan_of(op).treatment is Treatment.RERUN:
                assert plan_of(op).draws, name
