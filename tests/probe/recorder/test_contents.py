"""Whatever a batch is made of, one changed bit of it changes its digest."""

from __future__ import annotations

import array
import struct
from collections import UserDict, namedtuple
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from nondet_probe.bits import digest
from nondet_probe.probe.recorder.contents import contents, words_of_bytes, words_of_text

Pair = namedtuple("Pair", "first second")


@dataclass
class Graph:
    nodes: torch.Tensor
    name: str = "g"


class Node:
    def __init__(self, data: Any) -> None:
        self.data = data
        self.itself = self


def nan(payload: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0000 | payload))[0])


X = torch.arange(4.0)

DIFFERENT: list[tuple[Any, Any]] = [
    (X, X + 1e-7),
    ([X], [X, X]),
    ([X, X + 1], [X + 1, X]),
    ([[X], X], [X, [X]]),
    ({"a": X}, {"b": X}),
    ((X, 1), (X, 2)),
    ((X, 1), (X, True)),
    ((X, 1), (X, 1.0)),
    ((X, 0.0), (X, -0.0)),
    ((X, nan(1)), (X, nan(2))),
    ((1j, 0), (-1j, 0)),
    (["ab", "c"], ["a", "bc"]),
    (["a;b"], ["a", "b"]),
    ("a", b"a"),
    ([1, 2], [12]),
    ([None], []),
    (np.arange(3), np.arange(3.0)),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.zeros(2), -np.zeros(2)),
    (np.float32(1), np.float32(2)),
    (np.array(["a", 1], dtype=object), np.array(["a", 2], dtype=object)),
    (array.array("i", [1]), array.array("i", [2])),
    (bytearray(b"x"), bytearray(b"y")),
    (Pair(X, 1), Pair(1, X)),
    (Pair(X, 1), (X, 1)),
    (UserDict(a=X), UserDict(a=X + 1)),
    (Graph(X), Graph(X + 1)),
    (Graph(X), Graph(X, "h")),
    (Node(X), Node(X + 1)),
    ({"a", "b"}, {"a", "c"}),
    (PurePosixPath("a"), PurePosixPath("b")),
    (torch.float32, torch.float64),
    (torch.Size([1]), torch.Size([2])),
]


@pytest.mark.parametrize("pair", DIFFERENT, ids=str)
def test_different_values_have_different_digests(pair: tuple[Any, Any]) -> None:
    (one, unread), (other, also) = map(contents, pair)
    assert one != other
    assert unread == also == []
    assert contents(pair[0])[0] == one


def test_a_tensor_alone_has_its_own_digest() -> None:
    first, second = contents(X)[0]
    assert struct.pack(">2q", first, second).hex() == digest(X).hex


def test_a_set_of_words_is_the_same_in_every_process() -> None:
    # With equal hashes the order is that of insertion, as it is by chance with a salt.
    one, other = {-1, -2}, {-2, -1}
    assert list(one) != list(other)
    assert contents(one) == contents(other)


@pytest.mark.parametrize(
    ("opaque", "told"),
    [
        (lambda: None, "a value of type function"),
        ({object()}, "a value of type set"),
        (X.to_sparse(), "a tensor of Tensor (layout torch.sparse_coo is not taken, only torch"),
        (iter(()), "a value of type tuple_iterator"),
    ],
)
def test_what_cannot_be_read_is_named_once_and_the_rest_counts(opaque: Any, told: str) -> None:
    one, unread = contents([opaque, X, opaque])
    assert len(unread) == 1
    assert unread[0].startswith(told)
    assert contents([opaque, X + 1, opaque])[0] != one


def test_an_object_that_holds_the_whole_program_is_left() -> None:
    chain: Any = [Node(number) for number in range(3000)]
    _, unread = contents(chain)
    assert unread == ["a value of type Node"]
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert contents(deep)[1] == []


def test_bytes_and_texts() -> None:
    assert words_of_bytes(b"\xff\x00") != words_of_bytes(b"\xff")
    assert words_of_text("") != words_of_text(" ")
    assert words_of_text("a") == words_of_text("a")
    # Digests are read as two signed numbers everywhere.
    assert all(-(2**63) <= word < 2**63 for word in words_of_text("a"))
