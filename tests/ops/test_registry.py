import dataclasses

import pytest
import torch

from nondet_probe.errors import UnknownNameError
from nondet_probe.ops import registry
from nondet_probe.ops.registry import Guarantee, Variant


def variant(**changes: object) -> Variant:
    fields = {
        "op": "test_op",
        "name": "some",
        "guarantee": Guarantee.NONE,
        "cross_device": False,
        "batch_invariant": False,
        "error_bound": "none",
        "extra_memory": "none",
        "worst_case": "none",
        "dtypes": (torch.float32,),
        "doc": "None.",
    }
    return Variant(**{**fields, **changes})


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_VARIANTS", {})


def test_guarantees_are_ordered_weakest_first() -> None:
    assert [str(guarantee) for guarantee in sorted(Guarantee)] == [
        "none",
        "run_to_run",
        "launch_invariant",
        "order_invariant",
        "correctly_rounded",
    ]
    assert Guarantee.RUN_TO_RUN < Guarantee.LAUNCH_INVARIANT


@pytest.mark.usefixtures("empty")
def test_what_is_registered_is_found() -> None:
    first, second = variant(), variant(name="other")
    registry.register(first)
    registry.register(second)
    assert registry.ops() == ("test_op",)
    assert registry.variants("test_op") == (first, second)
    assert registry.find("test_op", "other") is second


@pytest.mark.usefixtures("empty")
def test_a_second_registration_of_a_name_is_refused() -> None:
    registry.register(variant())
    with pytest.raises(ValueError, match=r"variant 'some' of op 'test_op' is registered already"):
        registry.register(variant(doc="Another."))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown op 'summ'; did you mean 'sum'\? Known: "):
        registry.variants("summ")
    with pytest.raises(
        UnknownNameError,
        match=r"unknown variant of sum 'exakt'; did you mean 'exact'\? "
        r"Known: atomic, binned, exact, fixed_order, kahan, pairwise, two_pass\.",
    ):
        registry.find("sum", "exakt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Two Words"}, "lower-case identifier, got 'Two Words'"),
        ({"op": ""}, "Variant.op must be"),
        ({"dtypes": ()}, "Variant.dtypes of test_op/some is empty"),
        ({"error_bound": ""}, "Variant.error_bound of test_op/some is empty"),
    ],
)
def test_an_incomplete_variant_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variant(**changes)


def test_a_variant_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        variant().name = "other"  # type: ignore[misc]
