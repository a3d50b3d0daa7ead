"""What a probe that executes ops again does with each overload, decided once from its schema."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import torch

from nondet_probe.env.torch_private import OpOverload

__all__ = ["Plan", "Treatment", "plan_of"]


class Treatment(Enum):
    """RERUN: execute again and compare. VIEW: computes nothing. ALLOCATION: memory without content.
    NOT_COVERED: cannot be executed again."""

    RERUN = "rerun"
    VIEW = "view"
    ALLOCATION = "allocation"
    NOT_COVERED = "not covered"


# Memory whose content nobody promised, by exact name: an op such as `_empty_affine_quantized` has
# other reasons not to be compared, and a user's op may be called anything.
_ALLOCATIONS = frozenset(
    f"aten::{name}"
    for name in (
        "empty",
        "empty_like",
        "empty_permuted",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "resize",
        "resize_",
        "resize_as",
        "resize_as_",
        "_resize_output",
        "_resize_output_",
    )
)
_REPLACES_STORAGE = frozenset(("aten::set_", "aten::set", "aten::set_data"))
_COMMUNICATION = frozenset(
    (
        "c10d",
        "c10d_functional",
        "_c10d_functional",
        "_c10d_functional_autograd",
        "_dtensor",
        "symm_mem",
    )
)
_BOOKKEEPING = frozenset(("profiler", "debug_mode_ops", "debugprims"))
# Operands that a kernel writes although the schema does not say so.
_SILENT_WRITES = {
    "aten::native_batch_norm": ("running_mean", "running_var"),
    "aten::batch_norm": ("running_mean", "running_var"),
    "aten::_batch_norm_impl_index": ("running_mean", "running_var"),
    "aten::cudnn_batch_norm": ("running_mean", "running_var"),
    "aten::miopen_batch_norm": ("running_mean", "running_var"),
    "aten::instance_norm": ("running_mean", "running_var"),
}
# Outputs, by position, that are memory for the backward pass of which a kernel fills only a part:
# the rest holds what was there before; or where it leaves the state of a generator, if it drew.
# What the op returns beside them is compared, and so is what the backward pass computes from them.
_SCRATCH = {
    "aten::_ctc_loss": (1,),  # log_alpha, beyond the lengths of the targets
    "aten::mkldnn_rnn_layer": (3,),  # workspace of oneDNN
    "aten::_cudnn_rnn": (3,),  # reserve space of cuDNN, as the next two
    "aten::miopen_rnn": (3,),
    "aten::cudnn_batch_norm": (3,),
    "aten::_batch_norm_with_update": (3,),
    "aten::_scaled_dot_product_flash_attention": (6, 7, 8),
    "aten::_scaled_dot_product_efficient_attention": (2, 3),
    "aten::_scaled_dot_product_cudnn_attention": (6, 7, 8),
    "aten::_flash_attention_forward": (2, 3, 4),
    "aten::_efficient_attention_forward": (2, 3),
}


@dataclass(frozen=True)
class Plan:
    """name: "aten.add_.Tensor". reason: why not covered.

    written: (position, name) of the operands that the op writes. new: positions of the outputs that
    are no operand, of `outputs` in all. draws: may move a random stream. opaque: from outside of
    ATen, so anything not in the schema may happen too. may_alias: the schema says view, but it may
    be a computation.
    """

    name: str
    treatment: Treatment
    reason: str = ""
    written: tuple[tuple[int, str], ...] = ()
    new: tuple[int, ...] = ()
    outputs: int = 0
    draws: bool = False
    opaque: bool = False
    may_alias: bool = False


@cache
def plan_of(op: Any) -> Plan:
    """The plan for an OpOverload; anything else that reaches a dispatch mode is not covered."""
    if not isinstance(op, OpOverload):
        return Plan(str(op), Treatment.NOT_COVERED, "a higher-order operator")
    name, schema = str(op), op._schema
    if schema.name in _ALLOCATIONS:
        return Plan(name, Treatment.ALLOCATION)
    if schema.name in _REPLACES_STORAGE:
        return Plan(name, Treatment.NOT_COVERED, f"{name} replaces a tensor's memory")
    if op.namespace in _COMMUNICATION:
        return Plan(name, Treatment.NOT_COVERED, "communication between processes")
    if op.namespace in _BOOKKEEPING or torch.Tag.inplace_view in op.tags:
        return Plan(name, Treatment.VIEW)
    # Such an op reaches the mode only under torch.inference_mode: elsewhere its parts do.
    composite = op.namespace == "aten" and op._can_decompose()
    if op.is_view and not composite:
        return Plan(name, Treatment.VIEW)
    silent = _SILENT_WRITES.get(schema.name, ())
    return Plan(
        name,
        Treatment.RERUN,
        written=tuple(
            (position, argument.name)
            for position, argument in enumerate(schema.arguments)
            if _is_written(argument) or argument.name in silent
        ),
        new=tuple(
            position
            for position, output in enumerate(schema.returns)
            if not _is_written(output) and position not in _SCRATCH.get(schema.name, ())
        ),
        outputs=len(schema.returns),
        draws=composite
        or op.namespace != "aten"
        or torch.Tag.nondeterministic_seeded in op.tags
        or any("Generator" in str(argument.type) for argument in schema.arguments),
        opaque=op.namespace != "aten",
        may_alias=bool(op.is_view),
    )


def _is_written(value: Any) -> bool:
    return value.alias_info is not None and bool(value.alias_info.is_write)
