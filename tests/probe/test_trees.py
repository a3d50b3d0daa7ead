from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from nondet_probe.bits import bit_equal
from nondet_probe.probe.trees import copy_tree

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Other:
    tensor: torch.Tensor


def one_copy(tree: object) -> object:
    (made,) = copy_tree(tree, 1)
    return made


def test_containers_stay_what_they_are() -> None:
    other = Other(torch.ones(2))
    tree = {
        "list": [torch.ones(2), 3],
        "pair": Pair(torch.zeros(1), "text"),
        "ordered": OrderedDict(b=torch.ones(1), a=None),
        "array": np.arange(6).reshape(2, 3).T,
        "other": other,
    }
    made = one_copy(tree)
    assert isinstance(made, dict)
    assert list(made) == list(tree)
    assert isinstance(made["pair"], Pair)
    assert isinstance(made["ordered"], OrderedDict)
    assert list(made["ordered"]) == ["b", "a"]
    assert made["list"][1] == 3
    assert made["array"].strides == tree["array"].strides
    assert made["other"] is other


def test_writing_into_a_copy_leaves_the_original_and_the_other_copies() -> None:
    tree = (torch.zeros(3), [np.zeros(2)])
    first, second = copy_tree(tree, 2)
    first[0].fill_(7)
    first[1][0][:] = 7
    for left in (tree, second):
        assert left[0].tolist() == [0, 0, 0]
        assert left[1][0].tolist() == [0, 0]


BASE = torch.arange(240, dtype=torch.float32).reshape(4, 6, 10)


@pytest.mark.parametrize(
    "tensor",
    [
        BASE,
        BASE[1:, 1:],  # begins in the middle of a cache line
        BASE.transpose(0, 2),
        BASE[:, ::2],
        BASE[:1].expand(5, 6, 10),
        BASE.reshape(-1)[3:],
        BASE.reshape(1, 4, 6, 10).contiguous(memory_format=torch.channels_last),
        BASE.to(torch.bfloat16)[1:],
        torch.empty(0, 3),
        torch.tensor(3.0),
        torch.tensor([True, False]),
        torch.randn(4, dtype=torch.complex64).conj(),
    ],
)
def test_a_copy_has_the_same_bits_strides_and_alignment(tensor: torch.Tensor) -> None:
    made = one_copy(tensor)
    assert bit_equal(made, tensor)
    assert made.stride() == tensor.stride()
    if tensor.numel():
        assert made.data_ptr() % 64 == tensor.data_ptr() % 64
        assert made.data_ptr() != tensor.data_ptr()


def test_a_plain_clone_would_not_do() -> None:
    tensor = BASE.reshape(-1)[3:]
    assert tensor.clone().data_ptr() % 64 != tensor.data_ptr() % 64


def test_one_tensor_twice_and_views_of_one_share_memory_in_the_copy_too() -> None:
    base = torch.zeros(6)
    first, second = copy_tree([base, base, base[2:4]], 2)
    assert first[0] is first[1]
    first[0].fill_(1)
    assert first[2].tolist() == [1, 1]
    assert second[0].sum() == 0
    assert base.sum() == 0


def test_gradients_go_to_the_copy() -> None:
    leaf = torch.ones(2, requires_grad=True)
    made = one_copy([leaf, leaf * 2])
    assert all(tensor.is_leaf and tensor.requires_grad for tensor in made)
    made[0].sum().backward()
    assert leaf.grad is None


def test_sparse_tensors_are_cloned() -> None:
    tensor = torch.eye(3).to_sparse()
    made = one_copy([tensor])[0]
    assert made is not tensor
    assert torch.equal(made.to_dense(), tensor.to_dense())
