"""ATen overloads that an op of this library can answer, and what answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nondet_probe import ops
from nondet_probe.mitigate import relatives_losses as losses
from nondet_probe.mitigate import relatives_rows as rows
from nondet_probe.mitigate import relatives_scatter as scatter
from nondet_probe.mitigate import relatives_sums as sums
from nondet_probe.ops.registry import Guarantee, Variant, variants

__all__ = ["FAMILY", "Relative", "weakest"]


@dataclass(frozen=True)
class Relative:
    """op: its name in the registry. call(variant, original, *args, **kwargs) takes the overload as
    it was and ATen's arguments, and gives ATen's result, or NotImplemented, TypeError, ValueError
    or IndexError for what the op does not take.

    most: what the result has at most, whatever the variant: of what is computed beside the op.
    least, least_short: elements of the first operand, in 16 bits the second, from which the op is
        no slower than torch's kernel on one thread. Where that is as good, smaller operands go
        there: below some 32,768 elements torch uses one thread anyway.
    """

    op: str
    call: Callable[..., Any]
    most: Guarantee = Guarantee.CORRECTLY_ROUNDED
    least: int = 0
    least_short: int | None = None

    def pays(self, x: Any) -> bool:
        """Whether the first operand is large enough."""
        least = self.least
        if self.least_short is not None and x.dtype in (torch.bfloat16, torch.float16):
            least = self.least_short
        return bool(x.numel() >= least)


def weakest(op: str, guarantee: Guarantee) -> Variant | None:
    """The variant with the weakest guarantee that is enough; None where there is none."""
    enough = [variant for variant in variants(op) if variant.guarantee >= guarantee]
    return min(enough, key=lambda variant: variant.guarantee, default=None)


_LAUNCH = Guarantee.LAUNCH_INVARIANT
_ORDER = Guarantee.ORDER_INVARIANT
_THREADS = 1 << 15  # elements from which torch uses threads

FAMILY: dict[str, Relative] = {
    "aten::sum": Relative("sum", sums.whole(ops.sum), least=_THREADS),
    "aten::sum.dim_IntList": Relative("sum", sums.over_dims(ops.sum), least=_THREADS),
    "aten::mean": Relative("mean", sums.whole(ops.mean), least=_THREADS),
    "aten::mean.dim": Relative("mean", sums.over_dims(ops.mean), least=_THREADS),
    "aten::dot": Relative("dot", sums.dot),
    "aten::cumsum": Relative("cumsum", sums.cumsum),
    "aten::cumsum_": Relative("cumsum", scatter.in_place(sums.cumsum)),
    "aten::var.correction": Relative("var", sums.var, least=_THREADS),
    "aten::var_mean.correction": Relative("var", sums.var_mean, least=_THREADS),
    # The root of a rounded variance is rounded again.
    "aten::std.correction": Relative("var", sums.std, _ORDER, _THREADS),
    "aten::std_mean.correction": Relative("var", sums.std_mean, _ORDER, _THREADS),
    "aten::linalg_vector_norm": Relative("norm", sums.vector_norm, least=1 << 19),
    "aten::index_put": Relative("index_put", scatter.index_put),
    "aten::index_put_": Relative("index_put", scatter.in_place(scatter.index_put)),
    "aten::_index_put_impl_": Relative("index_put", scatter.in_place(scatter.index_put)),
    "aten::index_add": Relative("index_add", scatter.index_add),
    "aten::index_add_": Relative("index_add", scatter.in_place(scatter.index_add)),
    "aten::scatter_add": Relative("scatter_add", scatter.scatter_add),
    "aten::scatter_add_": Relative("scatter_add", scatter.in_place(scatter.scatter_add)),
    "aten::embedding_dense_backward": Relative("embedding", scatter.embedding_dense_backward),
    "aten::bincount": Relative("bincount", scatter.bincount),
    "aten::histogram.bin_ct": Relative("histogram", scatter.histogram, least=_THREADS),
    # Of what belongs to a row the ops have one order.
    "aten::_softmax": Relative("softmax", rows.softmax, _LAUNCH, 1 << 21),
    "aten::_softmax_backward_data": Relative("softmax", rows.softmax_backward, _LAUNCH, 1 << 21),
    "aten::native_layer_norm_backward": Relative(
        "layer_norm", rows.layer_norm_backward, _LAUNCH, 1 << 21, 1 << 18
    ),
    # The losses of the elements are rounded before they are added.
    "aten::mse_loss": Relative("mean", losses.elementwise_loss, _ORDER, 1 << 20),
    "aten::smooth_l1_loss": Relative("mean", losses.elementwise_loss, _ORDER, 1 << 20),
    "aten::huber_loss": Relative("mean", losses.elementwise_loss, _ORDER, 1 << 22),
    "aten::binary_cross_entropy": Relative("mean", losses.cross_entropy_of_two, _ORDER, 1 << 20),
    "aten::binary_cross_entropy_with_logits": Relative(
        "mean", losses.cross_entropy_of_logits, _ORDER, _THREADS
    ),
    "aten::nll_loss_forward": Relative("mean", losses.nll_loss),
}
"""Overload to relative. A new op of the library needs a function and a line."""
