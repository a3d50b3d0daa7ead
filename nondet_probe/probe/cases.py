"""How each op of the registry is put to the test: its inputs, its call, and torch's counterpart.

Every op has one case or more; `tests/probe/test_cases.py` fails for one that has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nondet_probe import ops
from nondet_probe.ops.backends import offers
from nondet_probe.probe import case_calls as calls
from nondet_probe.probe import case_inputs as made
from nondet_probe.probe.case_calls import bytes_moved
from nondet_probe.probe.case_inputs import Inputs

__all__ = ["CASES", "Case", "Result", "tensors"]

Result = Tensor | tuple[Tensor, ...]


def tensors(result: Result) -> Inputs:
    """What an op gave, as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


@dataclass(frozen=True)
class Case:
    """One way in which an op is measured.

    shape: what is measured with n elements, in words; as_torch: torch's counterpart as its users
    write it: for people.
    make: inputs for n elements of a dtype, the same each time, contiguous; n is at least 1.
    theirs: torch's function. call: what is measured, call(function, *inputs), where the function is
    torch's, or ours with the variant filled in, and takes the same arguments. (An op with a single
    variant takes none.)
    label: what tells it from other cases of its op; "" for the first one.
    moved: bytes that have to be read and written, from inputs and results.
    most: the largest n to be measured of variants that are too slow for more.
    """

    op: str
    shape: str
    as_torch: str
    make: Callable[[int, torch.dtype], Inputs]
    theirs: Callable[..., Any]
    call: Callable[..., Result] = lambda function, *inputs: function(*inputs)
    label: str = ""
    moved: Callable[[Inputs, Inputs], int] = bytes_moved
    most: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What rows call it."""
        return f"{self.op} {self.label}".rstrip()

    def ours(self, variant: str, inputs: Inputs, backend: str | None = None) -> Inputs:
        """By the backend that is named; otherwise where the inputs are."""
        how = {} if backend is None else {"backend": backend}
        known = {one.name for one in ops.variants(self.op)} | {*offers("triton").get(self.op, ())}
        if len(known) > 1:
            how["variant"] = variant
        return tensors(self.call(partial(getattr(ops, self.op), **how), *inputs))

    def torch(self, inputs: Inputs) -> Inputs:
        return tensors(self.call(self.theirs, *inputs))


_VECTOR = "all n elements of a vector"
_COLUMNS = "the columns of a matrix of n elements, 1024 wide"
_ROWS = "the rows of a matrix of n elements, 1024 wide, forward and backward"
_INTO = "n elements added into 1000 places"

_ALL = [
    Case("sum", _VECTOR, "x.sum()", made.vector, torch.sum),
    Case("sum", _COLUMNS, "x.sum(0)", made.matrix, torch.sum, calls.dim_0, label="dim=0"),
    Case("mean", _VECTOR, "x.mean()", made.vector, torch.mean),
    Case("mean", _COLUMNS, "x.mean(0)", made.matrix, torch.mean, calls.dim_0, label="dim=0"),
    Case("dot", "two vectors of n elements", "torch.dot(a, b)", made.vectors, torch.dot),
    Case(
        "norm",
        _VECTOR,
        "torch.linalg.vector_norm(x)",
        made.vector,
        torch.linalg.vector_norm,
    ),
    Case(
        "var",
        "the rows of a matrix of n elements, 1024 wide",
        "torch.var(x, 1)",
        made.matrix,
        torch.var,
        calls.dim_1,
    ),
    Case("cumsum", _VECTOR, "torch.cumsum(x, 0)", made.vector, torch.cumsum, calls.dim_0),
    Case(
        "index_add",
        _INTO,
        "torch.index_add(table, 0, index, x)",
        made.placed,
        torch.index_add,
        calls.at_places,
    ),
    Case(
        "scatter_add",
        _INTO,
        "torch.scatter_add(table, 0, index, x)",
        made.placed,
        torch.scatter_add,
        calls.at_places,
    ),
    Case(
        "index_put",
        _INTO,
        "table.index_put((index,), x, accumulate=True)",
        made.placed,
        partial(torch.index_put, accumulate=True),
        calls.at_indices,
    ),
    Case(
        "index",
        "n elements taken from 1000, and the gradient of those",
        "table[index], with its backward",
        made.placed,
        lambda table, indices: table[indices],
        calls.index_backward,
        moved=calls.moved_by_taking,
    ),
    Case(
        "embedding",
        "n elements in rows of 64 taken from a table of 1000, and the gradient of the table",
        "torch.nn.functional.embedding(index, table), with its backward",
        made.taken_rows,
        functional.embedding,
        calls.embedding_backward,
        moved=calls.moved_by_taking,
    ),
    Case(
        "segment_sum",
        "n elements in segments of about 1000",
        'torch.segment_reduce(x, "sum", lengths=lengths)',
        made.segments,
        partial(torch.segment_reduce, reduce="sum"),
        calls.segment_sum,
    ),
    Case(
        "bincount",
        "n weights into 1000 bins",
        "torch.bincount(index, x, 1000)",
        made.weighted,
        torch.bincount,
        calls.bincount,
    ),
    Case(
        "histogram",
        "n elements with weights into 64 bins",
        "torch.histogram(x, 64, range=(-4, 4), weight=weight)",
        made.vectors,
        torch.histogram,
        calls.histogram,
    ),
    Case(
        "layer_norm",
        _ROWS,
        "torch.nn.functional.layer_norm(x, (1024,), weight, bias)",
        made.norm_rows,
        functional.layer_norm,
        calls.layer_norm_backward,
        moved=calls.moved_by_norm,
    ),
    Case(
        "rms_norm",
        _ROWS,
        "torch.nn.functional.rms_norm(x, (1024,), weight)",
        made.norm_rows,
        functional.rms_norm,
        calls.rms_norm_backward,
        moved=calls.moved_by_norm,
    ),
    Case(
        "softmax",
        _ROWS,
        "torch.softmax(x, 1)",
        made.row_and_gradient,
        torch.softmax,
        calls.softmax_backward,
    ),
    Case(
        "log_softmax",
        _ROWS,
        "torch.log_softmax(x, 1)",
        made.row_and_gradient,
        torch.log_softmax,
        calls.softmax_backward,
    ),
    Case(
        "cross_entropy",
        _ROWS,
        "torch.nn.functional.cross_entropy(x, target)",
        made.classified,
        functional.cross_entropy,
        calls.cross_entropy_backward,
        moved=calls.moved_by_loss,
    ),
    Case(
        "matmul",
        "two matrices of n elements, whose product is 32 by 32",
        "torch.matmul(a, b)",
        made.factors,
        torch.matmul,
        most={"exact": 50_000},
    ),
    Case(
        "attention",
        "queries, keys and values of n elements each, 64 wide, forward and backward",
        "torch.nn.functional.scaled_dot_product_attention(query, key, value)",
        made.attended,
        functional.scaled_dot_product_attention,
        calls.attention_backward,
    ),
]

CASES: dict[str, list[Case]] = {case.op: [] for case in _ALL}
"""By the op's name in the registry."""
for _case in _ALL:
    CASES[_case.op].append(_case)
