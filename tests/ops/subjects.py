"""Every deterministic variant of every op as a function of one vector: what is tortured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nondet_probe import ops
from nondet_probe.ops import Guarantee, Variant, variants

__all__ = ["SUBJECTS", "Subject"]


@dataclass(frozen=True)
class Subject:
    """call(x, threads): x is 1-D of any stride. exactly(x): the right result of the variant, for
    at most `most` elements; None where only sameness is asked for."""

    call: Callable[[Tensor, int], Tensor]
    exactly: Callable[[Tensor], Tensor] | None = None
    most: int = 5000


SUBJECTS: dict[str, Subject] = {}


def _subject(
    op: str,
    call: Callable[[Tensor, str, int], Tensor],
    exactly: Callable[[Tensor], Tensor] | None = None,
    most: int = 5000,
) -> None:
    """All variants of `op` whose bits do not depend on the launch."""
    for variant in variants(op):
        if variant.guarantee < Guarantee.LAUNCH_INVARIANT:
            continue
        right = exactly if variant.guarantee is Guarantee.CORRECTLY_ROUNDED else None
        SUBJECTS[f"{op} {variant.name}"] = Subject(_bound(call, variant), right, most)


def _bound(
    call: Callable[[Tensor, str, int], Tensor], variant: Variant
) -> Callable[[Tensor, int], Tensor]:
    return lambda x, threads: call(x, variant.name, threads)


_subject("sum", lambda x, v, t: ops.sum(x, variant=v, threads=t), ops.sum_ref, most=10**5)
_subject("mean", lambda x, v, t: ops.mean(x, variant=v, threads=t), ops.mean_ref, most=10**5)
_subject("norm", lambda x, v, t: ops.norm(x, variant=v, threads=t), ops.norm_ref)
_subject("var", lambda x, v, t: ops.var(x, variant=v, threads=t), ops.var_ref)
_subject(
    "dot",
    lambda x, v, t: ops.dot(x, x.flip(0), variant=v, threads=t),
    lambda x: ops.dot_ref(x, x.flip(0)),
)
_subject(
    "cumsum",
    lambda x, v, t: ops.cumsum(x, 0, variant=v, threads=t),
    lambda x: ops.cumsum_ref(x, 0),
    most=100,
)

# ---- sums by destination: the first hears from every second addend, the last from none

PLACES = 37


def _places(x: Tensor) -> Tensor:
    numbers = torch.arange(x.numel())
    return torch.where(numbers % 2 == 0, 0, numbers * 7 % (PLACES - 1))


def _start(x: Tensor) -> Tensor:
    return torch.linspace(-1, 1, PLACES, dtype=x.dtype)


def _index_gradient(x: Tensor, variant: str, threads: int) -> Tensor:
    table = _start(x).requires_grad_()
    ops.index(table, (_places(x),), variant=variant, threads=threads).backward(x)
    assert table.grad is not None
    return table.grad


def _embedding_gradient(x: Tensor, variant: str, threads: int) -> Tensor:
    table = _start(x).unsqueeze(1).requires_grad_()
    rows = ops.embedding(_places(x), table, variant=variant, threads=threads)
    rows.backward(x.unsqueeze(1))
    assert table.grad is not None
    return table.grad


def _lengths(x: Tensor) -> Tensor:
    few, none = x.numel() // 3, 0
    return torch.tensor([few, none, x.numel() - few])


def _histogram(x: Tensor, variant: str, threads: int) -> Tensor:
    weight = x if x.dtype in (torch.float32, torch.float64) else x.float()
    edges = torch.arange(PLACES, dtype=weight.dtype)
    places = _places(x).to(weight.dtype)
    return ops.histogram(places, edges, weight=weight, variant=variant, threads=threads).hist


_subject(
    "index_add",
    lambda x, v, t: ops.index_add(_start(x), 0, _places(x), x, variant=v, threads=t),
    lambda x: ops.index_add_ref(_start(x), 0, _places(x), x),
)
_subject(
    "scatter_add",
    lambda x, v, t: ops.scatter_add(_start(x), 0, _places(x), x, variant=v, threads=t),
    lambda x: ops.scatter_add_ref(_start(x), 0, _places(x), x),
)
_subject(
    "index_put",
    lambda x, v, t: ops.index_put(_start(x), (_places(x),), x, variant=v, threads=t),
    lambda x: ops.index_put_ref(_start(x), (_places(x),), x),
)
_subject("index", _index_gradient)
_subject("embedding", _embedding_gradient)
_subject(
    "segment_sum",
    lambda x, v, t: ops.segment_sum(x, lengths=_lengths(x), variant=v, threads=t),
    lambda x: ops.segment_sum_ref(x, lengths=_lengths(x)),
)
_subject(
    "bincount",
    lambda x, v, t: ops.bincount(_places(x), x, PLACES, variant=v, threads=t),
    lambda x: ops.bincount_ref(_places(x), x, PLACES),
)
_subject("histogram", _histogram)

# ---- rows of COLUMNS elements; what is left over is not used

COLUMNS = 11


def _rows(x: Tensor) -> Tensor:
    whole = x.numel() // COLUMNS * COLUMNS
    return x[:whole].unflatten(0, (-1, COLUMNS))


def _ramp(x: Tensor) -> Tensor:
    return torch.linspace(0.5, 2.0, COLUMNS, dtype=x.dtype).requires_grad_()


def _with_gradients(result: Tensor, leaves: list[Tensor]) -> Tensor:
    """The result and all gradients, one after the other, for a gradient that is the result."""
    result.backward(result.detach())
    found = [result.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]
    return torch.cat([one.reshape(-1) for one in found])


def _layer_norm(x: Tensor, variant: str, threads: int) -> Tensor:
    rows, weight, bias = _rows(x).detach().requires_grad_(), _ramp(x), _ramp(x)
    result = ops.layer_norm(rows, (COLUMNS,), weight, bias, variant=variant, threads=threads)
    return _with_gradients(result, [rows, weight, bias])


def _rms_norm(x: Tensor, variant: str, threads: int) -> Tensor:
    rows, weight = _rows(x).detach().requires_grad_(), _ramp(x)
    result = ops.rms_norm(rows, (COLUMNS,), weight, variant=variant, threads=threads)
    return _with_gradients(result, [rows, weight])


def _softmax(of: Callable[..., Tensor]) -> Callable[[Tensor, str, int], Tensor]:
    def call(x: Tensor, variant: str, threads: int) -> Tensor:
        rows = _rows(x).detach().requires_grad_()
        return _with_gradients(of(rows, -1, threads=threads), [rows])

    return call


def _cross_entropy(x: Tensor, variant: str, threads: int) -> Tensor:
    rows = _rows(x).detach().requires_grad_()
    target = torch.arange(len(rows)) * 3 % COLUMNS
    result = ops.cross_entropy(rows, target, variant=variant, threads=threads)
    return _with_gradients(result, [rows])


_subject("layer_norm", _layer_norm)
_subject("rms_norm", _rms_norm)
_subject("softmax", _softmax(ops.softmax))
_subject("log_softmax", _softmax(ops.log_softmax))
_subject("cross_entropy", _cross_entropy)
_subject(
    "matmul",
    lambda x, v, t: ops.matmul(_rows(x), _rows(x)[:5].T, variant=v, threads=t),
    lambda x: ops.matmul_ref(_rows(x), _rows(x)[:5].T),
    most=1000,
)
