"""The two ways of a call: straight to the kernel, and through torch's dispatcher where anything may
see it there. Nobody can tell them apart by the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from generators import bits_of
from torch import Tensor
from torch.overrides import TorchFunctionMode

import nondet_probe
from nondet_probe.env.torch_private import TorchDispatchMode, calls_are_watched
from nondet_probe.ops import embedding, index_add, index_put, sum, var_mean, via_c
from nondet_probe.ops.define import define
from nondet_probe.probe.cases import CASES, Case

NAMES = {case.name: case for cases in CASES.values() for case in cases}
# On CPU attention is no operator, but made of some.
OPERATORS = [name for name in NAMES if name != "attention"]
X = torch.tensor([1.5, -2.25, 4.0])
AT = torch.tensor([2, 0, 2])


class SeesOps(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops.append(str(func))
        return func(*args, **(kwargs or {}))

    def ours(self) -> list[str]:
        return [op for op in self.ops if op.startswith("nondet_probe.")]


class SeesFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.functions: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.functions.append(str(func))
        return func(*args, **(kwargs or {}))


def strongest(case: Case) -> str:
    return max(nondet_probe.ops.variants(case.op), key=lambda variant: variant.guarantee).name


@pytest.mark.parametrize("name", NAMES)
def test_a_mode_sees_every_op_and_changes_no_bits(name: str) -> None:
    case = NAMES[name]
    inputs = case.make(40, torch.float32)
    straight = case.ours(strongest(case), inputs)
    with SeesOps() as mode:
        seen = case.ours(strongest(case), inputs)
    assert mode.ours()
    assert [bits_of(one) for one in straight] == [bits_of(one) for one in seen]


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_nothing_watches_enters_no_dispatcher(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = NAMES[name]
    inputs = case.make(40, torch.float32)
    calls: list[str] = []
    called = torch._ops.OpOverload.__call__

    def note(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(str(self))
        return called(self, *args, **kwargs)

    monkeypatch.setattr(torch._ops.OpOverload, "__call__", note)
    case.ours(strongest(case), inputs)
    assert [call for call in calls if call.startswith("nondet_probe.")] == []
    with SeesFunctions():
        case.ours(strongest(case), inputs)
    assert [call for call in calls if call.startswith("nondet_probe.")] != []


@pytest.mark.parametrize("name", OPERATORS)
def test_results_are_nobodys_views_and_share_no_memory(name: str) -> None:
    case = NAMES[name]
    inputs = case.make(40, torch.float32)
    given = {one.untyped_storage().data_ptr() for one in inputs if isinstance(one, Tensor)}
    for result in case.ours(strongest(case), inputs):
        assert result._base is None or result.grad_fn is not None
        assert result.untyped_storage().data_ptr() not in given


def test_whatever_may_watch_sees_the_call() -> None:
    with SeesFunctions() as functions:
        sum(X)
    assert "nondet_probe.sum.default" in functions.functions
    with torch.profiler.profile() as profile:
        sum(X)
    assert "nondet_probe::sum" in {event.key for event in profile.key_averages()}
    with nondet_probe.reproducible(watch=True) as run:
        sum(X)
    assert run.report().untouched["nondet_probe::sum"] == 1
    assert not calls_are_watched("nondet_probe::sum")


NEGATIVE = torch._neg_view(X)
ZEROS = torch._efficientzerotensor((3,))


class Odd(Tensor):
    pass


@pytest.mark.parametrize(
    ("x", "numbers"),
    [
        (NEGATIVE, [-1.5, 2.25, -4.0]),
        (ZEROS, [0.0, 0.0, 0.0]),
        (X.as_subclass(Odd), [1.5, -2.25, 4.0]),
    ],
    ids=["negative", "zeros", "class"],
)
def test_tensors_that_are_not_plain_give_what_they_stand_for(
    x: Tensor, numbers: list[float]
) -> None:
    plain = torch.tensor(numbers)
    assert bits_of(sum(x)) == bits_of(sum(plain))
    assert bits_of(index_add(plain, 0, AT, x)) == bits_of(index_add(plain, 0, AT, plain))
    assert bits_of(index_put(plain, (AT,), x)) == bits_of(index_put(plain, (AT,), plain))
    assert type(sum(x)) is type(x)


FIT: list[tuple[tuple[object, ...], int]] = [
    ((X, [AT, None], "s", None), 1),
    ((X, [], "s", 3), 1),
    ((X, [X.clone().requires_grad_()], "s", None), 2),
    ((torch.nn.Parameter(X), [], "s", None), 2),
    ((X, [X.clone().requires_grad_(), NEGATIVE], "s", None), 0),
    ((X, [1], "s", None), 0),
    ((X, (AT,), "s", None), 0),
    ((X, [AT], "s", True), 0),
    ((X, [AT], None, 3), 0),
    ((None, [AT], "s", 3), 0),
    ((X, [AT], "s", 3, 4), 0),
    ((X.to("meta"), [AT], "s", 3), 0),
    ((X, [AT.to_sparse()], "s", 3), 0),
    ((NEGATIVE, [AT], "s", 3), 0),
    ((ZEROS, [AT], "s", 3), 0),
    ((X.as_subclass(Odd), [AT], "s", 3), 0),
]


@pytest.mark.parametrize(("given", "fit"), FIT)
def test_arguments_that_fit(given: tuple[object, ...], fit: int) -> None:
    tensors = via_c.PLAIN_TENSORS
    kinds = [
        (tensors, ()),
        ((list,), (*tensors, type(None))),
        ((str,), ()),
        ((int, type(None)), ()),
    ]
    assert via_c.look_at(kinds)(given) == fit


@pytest.mark.parametrize(
    "call",
    [
        lambda: index_add(X, 0, [1], X),  # type: ignore[arg-type]
        lambda: sum(X, threads="2"),  # type: ignore[arg-type]
        lambda: sum(X, [1.5]),  # type: ignore[list-item]
        lambda: embedding(AT, X.reshape(3, 1), scale_grad_by_freq="no"),  # type: ignore[arg-type]
    ],
)
def test_other_types_are_refused_by_the_dispatcher(call: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, TypeError), match="nondet_probe::"):
        call()


def test_an_op_without_formula_refuses_gradients() -> None:
    twice = define(
        "define_test", "(Tensor x) -> Tensor", kernel=lambda x: x + x, fake=lambda x: x + x
    )
    assert twice(X).tolist() == [3.0, -4.5, 8.0]
    with torch.no_grad():
        assert not twice(X.clone().requires_grad_()).requires_grad
    with pytest.raises(TypeError, match="define_test has no derivative"):
        twice(X.clone().requires_grad_())


def test_gradients_of_one_of_two_results() -> None:
    for which, expected in ((0, [0.4166666, -3.3333333, 2.9166667]), (1, [1 / 3] * 3)):
        x = X.clone().requires_grad_()
        var_mean(x)[which].backward()
        assert x.grad is not None
        assert [round(one, 5) for one in x.grad.tolist()] == [round(one, 5) for one in expected]


def test_gradients_through_a_list_with_holes_and_masks() -> None:
    x = torch.arange(12.0).reshape(3, 4).requires_grad_()
    values = torch.ones(3, 2, requires_grad=True)
    mask = torch.tensor([True, False, False, True])
    for indices in ([None, mask], [None, torch.tensor([0, 3])]):
        result = index_put(x, indices, values)
        with SeesOps():
            watched = index_put(x, indices, values)
        weight = torch.arange(12.0).reshape(3, 4)
        straight = torch.autograd.grad((result * weight).sum(), (x, values))
        seen = torch.autograd.grad((watched * weight).sum(), (x, values))
        assert straight[0].tolist() == seen[0].tolist() == weight.tolist()
        assert straight[1].tolist() == seen[1].tolist() == weight[:, [0, 3]].tolist()
