"""Which way each overload goes under a guarantee.

In this order: an op of the family, in the weakest variant that is enough, where it is worth it; a
product or convolution in slices; an elementwise overload in pieces; one thread for what else a
sweep saw vary; a count of its calls for what no sweep measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nondet_probe.env.torch_private import is_pointwise
from nondet_probe.mitigate.convolution import convolution, convolution_backward
from nondet_probe.mitigate.family import FAMILY, Relative, weakest
from nondet_probe.mitigate.measured import Kind, finding, kinds, operator
from nondet_probe.mitigate.pointwise import pointwise
from nondet_probe.mitigate.products import PRODUCTS, goes_to_blas
from nondet_probe.mitigate.via_c import on_one_thread
from nondet_probe.ops.registry import Guarantee

__all__ = [
    "GIVEN",
    "UNKNOWN",
    "UNTOUCHED",
    "Counter",
    "Original",
    "Route",
    "by_family",
    "counted",
    "routes",
]

SLICES = "slices"
PIECES = "pieces"
ONE_THREAD = "one thread"
STRICT = "left to MKL's strict mode"
UNKNOWN = "unknown"
UNTOUCHED = "untouched"

GIVEN = {
    SLICES: Guarantee.LAUNCH_INVARIANT,
    ONE_THREAD: Guarantee.LAUNCH_INVARIANT,
    STRICT: Guarantee.LAUNCH_INVARIANT,
    UNTOUCHED: Guarantee.LAUNCH_INVARIANT,
    UNKNOWN: Guarantee.NONE,
    # Nothing is added up.
    PIECES: Guarantee.CORRECTLY_ROUNDED,
}
"""What results have that came this way. Any other way is by a variant of the family."""

Original = Callable[..., Any]
Count = Callable[[], object]
Counter = Callable[[str], Count]
"""counter(how) gives a function that counts one call that went this way."""

# Bits that differ from run to run on one machine with one thread count (races between threads).
_RACES = {
    "aten::_index_put_impl",
    "aten::_unsafe_masked_index_put_accumulate",
    "aten::index_copy",
    "aten::index_put",
    "aten::put",
}
# Operators that add numbers up in an order of their own, so that no order of addends is as good as
# any other: what is asked for beyond launch_invariant they do not give.
_ADDING = {
    f"aten::{name}"
    for name in (
        "_cdist_backward", "_embedding_bag", "_embedding_bag_dense_backward", "_fused_rms_norm",
        "_fused_rms_norm_backward", "_log_softmax", "_log_softmax_backward_data",
        "_native_batch_norm_legit", "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward", "_softmax",
        "_softmax_backward_data", "addbmm", "addmv", "addr", "avg_pool2d", "binary_cross_entropy",
        "bincount", "convolution", "cumprod", "cumsum", "dot", "embedding_dense_backward",
        "grid_sampler_2d_backward", "histc", "index_add", "index_reduce", "kl_div",
        "linalg_vector_norm", "logcumsumexp", "logsumexp", "mean", "mse_loss", "mv", "nansum",
        "native_batch_norm", "native_batch_norm_backward", "native_group_norm",
        "native_group_norm_backward", "native_layer_norm", "native_layer_norm_backward",
        "nll_loss_backward", "nll_loss_forward", "norm", "prod", "scatter_add", "scatter_reduce",
        "segment_reduce", "soft_margin_loss", "std", "std_mean", "sum", "trace", "var", "var_mean",
        "vdot",
    )
}  # fmt: skip


_CONVOLUTIONS: dict[str, Callable[..., Any]] = {
    "aten::convolution": convolution,
    "aten::convolution_backward": convolution_backward,
}
# Elementwise like those that torch tags so.
_ELEMENTWISE = {"aten::elu_backward", "aten::mish_backward", "aten::softplus_backward"}
# Neither arithmetic nor threads that could change a bit; or the inside of one that is measured.
_NO_ARITHMETIC = {
    f"aten::{name}"
    for name in (
        "_convolution", "_local_scalar_dense", "_reshape_copy", "_slow_conv2d_backward",
        "_slow_conv2d_forward", "_to_copy", "_unsafe_view", "all", "any", "arange", "as_strided",
        "copy", "detach", "empty_like", "equal", "eye", "fill", "full_like", "is_same_size",
        "isfinite", "isnan", "item", "mkldnn_convolution", "new_empty", "new_empty_strided",
        "nonzero", "ones_like", "requires_grad", "resize", "set", "set_data", "zero", "zeros_like",
    )
}  # fmt: skip


@dataclass(frozen=True)
class Route:
    """make(original, counter) gives the function that answers for the overload.

    guarantee: of the variant of the family, where the route is one.
    """

    make: Callable[[Original, Counter], Callable[..., Any]]
    guarantee: Guarantee = Guarantee.LAUNCH_INVARIANT


def routes(
    overloads: list[str], guarantee: Guarantee, *, strict: bool = False, watch: bool = False
) -> dict[str, Route]:
    """The routes for `guarantee`, by overload (`aten::sum.dim_IntList`).

    strict: MKL's strict mode is at work, which makes products thread-invariant by itself.
    watch: count the calls of what needs no route too.
    """
    found = {}
    for name in overloads:
        route = _route(name, guarantee, strict)
        if route is None and watch:
            route = Route(counted(UNTOUCHED))
        if route is not None:
            found[name] = route
    return found


def _route(name: str, guarantee: Guarantee, strict: bool) -> Route | None:
    rest = _without_family(name, guarantee, strict)
    if name not in FAMILY or _torch_is_enough(name, guarantee):
        return rest
    relative = FAMILY[name]
    variant = weakest(relative.op, min(guarantee, relative.most))
    if variant is None or (guarantee is Guarantee.NONE and variant.guarantee > guarantee):
        return rest
    given = min(variant.guarantee, relative.most)
    # What a stronger guarantee than torch's needs is never left to torch because it is small.
    always = given not in (Guarantee.RUN_TO_RUN, Guarantee.LAUNCH_INVARIANT) or rest is None
    return Route(by_family(relative, variant.name, rest, always), given)


def _torch_is_enough(name: str, guarantee: Guarantee) -> bool:
    if guarantee is Guarantee.NONE or operator(name) in _RACES:
        return False
    if guarantee > Guarantee.LAUNCH_INVARIANT and FAMILY[name].most > Guarantee.LAUNCH_INVARIANT:
        return False
    return guarantee is Guarantee.RUN_TO_RUN or finding(name) == frozenset()


def _without_family(name: str, guarantee: Guarantee, strict: bool) -> Route | None:
    base = operator(name)
    if guarantee is Guarantee.NONE or name.startswith("nondet_probe::"):
        return None
    if guarantee is Guarantee.RUN_TO_RUN:
        return Route(_on_one_thread) if base in _RACES else None
    if name in PRODUCTS:
        if strict:
            return Route(_strict(PRODUCTS[name]))
        return Route(_sliced(PRODUCTS[name]))
    if name in _CONVOLUTIONS:
        return Route(_sliced(_CONVOLUTIONS[name]))
    if base in _NO_ARITHMETIC:
        return None
    varies = finding(name)
    if varies is None:
        return Route(counted(UNKNOWN))
    elementwise = name in _ELEMENTWISE or is_pointwise(name)
    way = _sliced(pointwise, PIECES) if varies and elementwise else _on_one_thread
    if base in _RACES or Kind.REAL in varies:
        return Route(way)
    if varies:
        return Route(_for_kinds(varies, way))
    if base in _ADDING and guarantee > Guarantee.LAUNCH_INVARIANT:
        return Route(counted(UNTOUCHED))
    return None


def by_family(
    relative: Relative, variant: str, rest: Route | None, always: bool
) -> Callable[[Original, Counter], Callable[..., Any]]:
    """By an op of this library; what it does not take, or, unless `always`, what is too small for
    it, by `rest`, or as it was."""

    def make(original: Original, counter: Counter) -> Callable[..., Any]:
        count, call = counter(f"{relative.op} {variant}"), relative.call
        otherwise = rest.make(original, counter) if rest is not None else original

        def run(*args: Any, **kwargs: Any) -> Any:
            if not (always or relative.pays(args[0])):
                return otherwise(*args, **kwargs)
            try:
                # Autograd, where it is wanted, records the overload itself.
                with torch.no_grad():
                    result = call(variant, original, *args, **kwargs)
            except (TypeError, ValueError, IndexError):
                # What the op refuses (a dtype, a layout, an index out of range) is torch's.
                result = NotImplemented
            if result is NotImplemented:
                return otherwise(*args, **kwargs)
            count()
            return result

        return run

    return make


def _sliced(
    function: Callable[..., Any], how: str = SLICES
) -> Callable[[Original, Counter], Callable[..., Any]]:
    def make(original: Original, counter: Counter) -> Callable[..., Any]:
        count = counter(how)

        def run(*args: Any, **kwargs: Any) -> Any:
            count()
            return function(original, *args, **kwargs)

        return run

    return make


def _strict(sliced: Callable[..., Any]) -> Callable[[Original, Counter], Callable[..., Any]]:
    def make(original: Original, counter: Counter) -> Callable[..., Any]:
        untouched, slices = counter(STRICT), counter(SLICES)

        def run(*args: Any, **kwargs: Any) -> Any:
            if goes_to_blas(*args):
                untouched()
                return original(*args, **kwargs)
            slices()
            return sliced(original, *args, **kwargs)

        return run

    return make


def _on_one_thread(original: Original, counter: Counter) -> Callable[..., Any]:
    count = counter(ONE_THREAD)

    def run(*args: Any, **kwargs: Any) -> Any:
        count()
        return on_one_thread(original, *args, **kwargs)

    return run


def _for_kinds(
    varies: frozenset[Kind], way: Callable[[Original, Counter], Callable[..., Any]]
) -> Callable[[Original, Counter], Callable[..., Any]]:
    def make(original: Original, counter: Counter) -> Callable[..., Any]:
        run_way = way(original, counter)

        def run(*args: Any, **kwargs: Any) -> Any:
            run_any = original if varies.isdisjoint(kinds(args)) else run_way
            return run_any(*args, **kwargs)

        return run

    return make


def counted(how: str) -> Callable[[Original, Counter], Callable[..., Any]]:
    """As it was, counted."""

    def make(original: Original, counter: Counter) -> Callable[..., Any]:
        count = counter(how)

        def run(*args: Any, **kwargs: Any) -> Any:
            count()
            return original(*args, **kwargs)

        return run

    return make
