"""What computes the overloads that torch has no deterministic kernel for on a GPU: on the CPU's
kernels the same Python code gives torch's result, exact where all terms are, in one order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from remade_cases import CASES, Given, as_dtype, bag, copied, drawn, numbers, overload, whole
from torch import Tensor
from torch.utils import _pytree as pytree

from nondet_probe.bits import bit_equal, digest
from nondet_probe.env import thread_count
from nondet_probe.mitigate.remade import PAIRS, REMADE
from nondet_probe.mitigate.taps import add_in_pairs

aten = torch.ops.aten


def remade(name: str, given: Given) -> Any:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("left to torch")

    found = REMADE[f"aten::{name}"][1](refused, *given)
    assert found is not NotImplemented
    return found


def test_every_one_has_a_case() -> None:
    assert {f"aten::{name}" for name in CASES} | {"aten::cudnn_grid_sampler_backward"} == set(
        REMADE
    )


def test_cudnns_grid_sampler_is_one_of_those() -> None:
    gradient, x, grid, *_ = CASES["grid_sampler_2d_backward"][1](drawn)
    expected = aten.grid_sampler_2d_backward(gradient, x, grid, 0, 0, True, [True, True])
    for one, other in zip(
        remade("cudnn_grid_sampler_backward", (x, grid, gradient)), expected, strict=True
    ):
        assert float((one - other).abs().max()) < 1e-12


ALL = [(name, number) for name in CASES for number in range(len(CASES[name]))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "number"), ALL)
def test_as_torch(name: str, number: int, dtype: torch.dtype) -> None:
    """Within rounding, of the same shapes, dtypes and strides; in float32 as in float64."""
    given = CASES[name][number](as_dtype(drawn, dtype))
    expected = overload(name)(*copied(given))
    found = remade(name, copied(given))
    exact = overload(name)(*pytree.tree_map(_in_double, copied(given)))
    step = torch.finfo(dtype).eps
    for one, other, oracle in zip(
        *(pytree.tree_leaves(x) for x in (found, expected, exact)), strict=True
    ):
        assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
        if name == "histc":
            assert bit_equal(one, other)  # where no edge is met
        if one.dtype is torch.int64:
            # No two are equal; of several NaNs torch may name another.
            assert bit_equal(one, other) or int(nans_of(expected)) > 0
            continue
        scale = float(oracle.double().nan_to_num().abs().max()) if one.numel() else 0
        far = (one.double() - oracle.double()).nan_to_num().abs() > 40 * step * max(scale, 1)
        assert int(far.sum()) == 0
        assert bit_equal(one.isnan(), oracle.isnan())


def nans_of(found: Any) -> Tensor:
    return found[0].isnan().sum()


def _in_double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


# All that is added is a multiple of a quarter here, or of what is said: any order is exact.
EXACT = {
    "upsample_linear1d_backward": [0], "upsample_bilinear2d_backward": [0, 3, 5],
    "upsample_trilinear3d_backward": [0], "reflection_pad1d_backward": [0],
    "reflection_pad2d_backward": [0, 1], "reflection_pad3d_backward": [0],
    "replication_pad1d_backward": [0], "replication_pad2d_backward": [0, 1],
    "replication_pad3d_backward": [0], "_adaptive_avg_pool2d_backward": [0],
    "_adaptive_avg_pool3d_backward": [0], "avg_pool3d_backward": [0, 1, 3], "cumsum": [0, 1],
    "cumsum_": [0], "adaptive_max_pool2d_backward": [0], "adaptive_max_pool3d_backward": [0],
    "fractional_max_pool2d_backward": [0], "fractional_max_pool3d_backward": [0],
    "max_pool3d_with_indices_backward": [0], "max_unpool2d": [0], "max_unpool3d": [0],
    "put_": [0, 1], "_embedding_bag_dense_backward": [0], "bincount": [0, 1],
    "nll_loss2d_forward": [0, 1, 2], "histc": [2],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, found in EXACT.items() for number in found]
)
def test_exact_where_every_term_is(name: str, number: int) -> None:
    """Bit for bit torch's, in float32: what is not added twice or forgotten."""
    given = CASES[name][number](as_dtype(whole, torch.float32))
    expected, found = overload(name)(*copied(given)), remade(name, copied(given))
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        assert bit_equal(one + 0, other + 0)  # of zeros the sign is no matter


@pytest.mark.parametrize("name", [name[6:] for name, (how, _) in REMADE.items() if how == PAIRS])
def test_in_pairs_means_any_number_of_threads(name: str) -> None:
    for make in CASES[name]:
        given, bits = make(as_dtype(drawn, torch.float32)), set()
        for threads in (1, 2, 3, 4):
            with thread_count(threads):
                bits.add(str(digest(remade(name, copied(given)))))
        assert len(bits) == 1


def test_narrow_numbers_are_added_in_float32() -> None:
    """And rounded once: nearer to the exact result than sums in 16 bits."""
    make = CASES["upsample_bilinear2d_backward"][4]
    given = make(as_dtype(drawn, torch.bfloat16))
    exact = aten.upsample_bilinear2d_backward(*pytree.tree_map(_in_double, given))
    found = remade("upsample_bilinear2d_backward", given)
    assert found.dtype is torch.bfloat16
    assert bit_equal(found, exact.bfloat16())


def test_what_an_output_has_not_touched_it_does_not_spoil() -> None:
    gradient = torch.ones(1, 1, 10, 14)
    gradient[0, 0, 0, 0] = torch.inf
    found = remade(
        "upsample_bilinear2d_backward", (gradient, [10, 14], [1, 1, 5, 7], False, None, None)
    )
    assert found[0, 0, 0, 0] == torch.inf
    assert int(found.isfinite().sum()) == 34


def test_equal_ones_are_named_by_their_order() -> None:
    x = torch.tensor([[3.0, 1, 1, 1, 5], [2.0, 2, 2, 2, 2]])
    values, places = remade("kthvalue", (x, 2))
    assert (values.tolist(), places.tolist()) == ([1, 2], [2, 1])
    values, places = remade("median.dim", (x, 1))
    assert (values.tolist(), places.tolist()) == ([1, 2], [3, 2])
    x[0, 1] = x[0, 3] = torch.nan
    assert remade("median.dim", (x, 1))[1].tolist() == [1, 2]
    assert remade("nanmedian.dim", (x, 1))[0].tolist() == [3, 2]
    whole_numbers = torch.tensor([[3, 1, 1, 1, 5]])
    assert remade("median.dim", (whole_numbers, 1))[0].tolist() == [1]


REFUSED: list[tuple[str, Given]] = [
    ("grid_sampler_2d_backward", (drawn(1, 1, 2, 2), drawn(1, 1, 3, 3), drawn(1, 2, 2, 2), 2, 0,
        False, [True, True])),
    ("upsample_bilinear2d_backward", (drawn(1, 1, 4, 4), [4, 5], [1, 1, 2, 2], False, None, None)),
    ("reflection_pad1d_backward", (drawn(1, 1, 9), drawn(1, 1, 3), [3, 3])),
    ("cumsum", (numbers(9, 50), 0)),
    ("histc", (numbers(9, 50), 4)),
    ("histc", (drawn(9), 4, 3, 1)),
    ("bincount", (numbers(9, 50),)),
    ("bincount", (numbers(9, 50) - 3, drawn(50))),
    ("nll_loss2d_forward", (drawn(2, 5, 4, 8), numbers(5, 2, 4, 8), None, 0, -100)),
    ("kthvalue", (drawn(9), 10)),
    ("put_", (drawn(9), numbers(5, 3), drawn(4))),
    ("max_unpool2d", (drawn(1, 2, 2), numbers(5, 1, 2, 2).int(), [4, 4])),
    ("_embedding_bag_dense_backward", (drawn(4, 6), *bag(drawn(9, 6)), 9, False, 0, None)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given"), REFUSED)
def test_what_is_not_taken_is_left_to_torch(name: str, given: Given) -> None:
    assert REMADE[f"aten::{name}"][1](None, *given) is NotImplemented


def test_pairs() -> None:
    for size in range(1, 20):
        terms = whole(3, size, 2).float()
        assert bit_equal(add_in_pairs(terms.clone(), 1), terms.sum(1))
    x = drawn(5).float()
    assert bit_equal(add_in_pairs(x.clone(), 0), ((x[0] + x[3]) + x[2]) + (x[1] + x[4]))
