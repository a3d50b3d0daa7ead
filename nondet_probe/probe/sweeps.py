"""What else one op call's bits depend on: threads, the size of the batch, memory nobody wrote.

Each question is asked of a recorded call, by executing it again on copies. The streams that the op
moves are the caller's to put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from nondet_probe.bits import bit_equal
from nondet_probe.env.host_memory import PATTERNS, filled_allocations
from nondet_probe.env.rng import preserved_rng
from nondet_probe.env.switches import deterministic_algorithms, thread_count
from nondet_probe.env.torch_private import OpOverload
from nondet_probe.probe.declared import arguments_of
from nondet_probe.probe.operands import replaced, tensors_in
from nondet_probe.probe.replay import Call, difference

__all__ = ["changes_with_batch", "changes_with_threads", "reads_unwritten", "settles"]

# Operands that hold one row of the batch a step of dimension 0; all new outputs do too.
_ROWS: dict[str, tuple[str, ...]] = {
    "aten.mm.default": ("self",),
    "aten.addmm.default": ("mat1",),
    "aten.bmm.default": ("self", "mat2"),
    "aten.convolution.default": ("input",),
    "aten.native_layer_norm.default": ("input",),
    "aten._fused_rms_norm.default": ("input",),
    "aten._scaled_dot_product_flash_attention_for_cpu.default": ("query", "key", "value"),
    "aten._scaled_dot_product_flash_attention.default": ("query", "key", "value"),
    "aten._scaled_dot_product_efficient_attention.default": ("query", "key", "value"),
    **dict.fromkeys(
        (
            "aten._softmax.default",
            "aten._log_softmax.default",
            "aten.sum.dim_IntList",
            "aten.mean.dim",
            "aten.var.correction",
            "aten.linalg_vector_norm.default",
            "aten.cumsum.default",
        ),
        ("self",),
    ),
}


def changes_with_threads(call: Call, first: Sequence[Any], counts: Sequence[int]) -> list[int]:
    """Those of the thread counts at which a repeatable call gives other bits than `first`."""
    found = []
    for count in counts:
        if count == torch.get_num_threads():
            continue
        with thread_count(count):
            if difference(first, call.again()) is not None:
                found.append(count)
    return found


def changes_with_batch(call: Call) -> bool | None:
    """Whether row 0 of the results changes when there are more rows; None where the op has no
    dimension that is known to be a batch, writes an operand, or draws."""
    rows = _rows(call)
    if rows is None:
        return None
    size = rows[0].shape[0]
    if size < 2:
        return None
    alone = _row_zero(call, rows, 1)
    return any(
        len(alone) != len(other) or not all(map(bit_equal, alone, other))
        for other in (_row_zero(call, rows, count) for count in sorted({2, size}))
    )


def _rows(call: Call) -> list[Tensor] | None:
    """The operands to cut along dimension 0."""
    if call.plan.written or call.plan.draws or not isinstance(call.op, OpOverload):
        return None
    given = arguments_of(call.op, call.args, call.kwargs)
    names = _ROWS.get(call.plan.name)
    if names is None:
        return _pointwise_rows(call)
    found = [given[name] for name in names]
    if any(not isinstance(x, Tensor) or x.dim() == 0 for x in found) or _over_rows(given, found[0]):
        return None
    return found


def _over_rows(given: dict[str, Any], x: Tensor) -> bool:
    """Whether the op reduces over dimension 0, or what it is added to has rows of its own."""
    if "normalized_shape" in given:
        return len(given["normalized_shape"]) >= x.dim()
    if "mat1" in given:
        return bool(given["self"].dim() == 2 and given["self"].shape[0] != 1)
    if "dim" not in given:
        # A reduction over everything; matrix products and attention have no such argument.
        return "ord" in given or "correction" in given
    dims = given["dim"] if isinstance(given["dim"], list | tuple) else [given["dim"]]
    return not dims or None in dims or any(dim % x.dim() == 0 for dim in dims)


def _pointwise_rows(call: Call) -> list[Tensor] | None:
    assert isinstance(call.op, OpOverload)
    if torch.Tag.pointwise not in call.op.tags:
        return None
    tensors = call.operands
    most = max((x.dim() for x in tensors), default=0)
    sizes = {x.shape[0] for x in tensors if x.dim() == most and most > 0} - {1}
    if len(sizes) != 1 or any(isinstance(x, list | tuple) for x in call.args):
        return None
    return [x for x in tensors if x.dim() == most and x.shape[0] in sizes]


def _row_zero(call: Call, rows: list[Tensor], count: int) -> list[Tensor]:
    """Row 0 of every result that has rows, computed with the first `count` rows."""
    cut = {id(x): x[:count] for x in rows}
    args = [replaced(value, cut) for value in call.args]
    kwargs = {name: replaced(value, cut) for name, value in call.kwargs.items()}
    output = call.op(*args, **kwargs)
    found = tensors_in(output if isinstance(output, list | tuple) else [output])
    return [x[0] for x in found if x.dim() > 0 and x.shape[0] == count]


def reads_unwritten(call: Call) -> bool | None:
    """Whether the call's bits change with what freshly allocated memory holds; None where that
    memory cannot be filled (on a GPU, or without glibc), or the bits change without that."""
    if any(not x.is_cpu for x in call.operands):
        return None
    found = []
    on = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    for pattern in PATTERNS:
        # torch's own fill would write over ours.
        with (
            deterministic_algorithms(on, warn_only=warn_only, fill=False),
            filled_allocations(pattern) as filled,
        ):
            if not filled:
                return None
            found.append(call.again())
            if len(found) == 1:
                found.append(call.again())
    one, again, other = found
    return None if difference(one, again) is not None else difference(one, other) is not None


def settles(
    call: Call,
    switch: Callable[[], AbstractContextManager[object]],
    counts: Sequence[int],
    executions: int = 10,
) -> bool:
    """Whether `executions` executions under `switch`, and one at each of `counts` threads, all give
    one set of bits. False where the call is refused under it."""
    try:
        # A switch may draw, to try itself out.
        with preserved_rng(), switch():
            first = call.again()
            if any(difference(first, call.again()) is not None for _ in range(executions - 1)):
                return False
            return not changes_with_threads(call, first, counts)
    except Exception:
        return False
