"""Digests of several, and those that lie on a device until the step ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from memory_trace import Memory

from nondet_probe.bits import digest
from nondet_probe.probe.recorder import digester as module
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.pending import OnDevice, Pending, combined, combined_bytes
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.trace import Site, TraceMeta, Words

X = torch.arange(6.0)


def refused(reason: str) -> None:
    raise AssertionError(reason)


def test_one_is_itself_and_several_are_hashed_in_order() -> None:
    made = Digester(refused)
    one, other = made.words(X), made.words(X * 2)
    assert isinstance(one, tuple)
    assert isinstance(other, tuple)
    assert made.words([X, X * 2]) == combined([one, other]) != combined([other, one])
    assert made.words([X, 1]) != made.words([X, 2]) != one
    assert made.each([X, X * 2]) == [one, other]
    assert made.joined([one, other]) == combined([one, other])
    assert made.joined([one, None]) is None
    assert (
        combined([one])
        == one
        == combined_bytes(b"".join(w.to_bytes(8, "little", signed=True) for w in one))
    )


def test_a_copy_has_the_digest_of_what_it_shows() -> None:
    made = Digester(refused)
    lazy = torch.complex(X, X).conj()
    assert made.words(lazy) == made.words(lazy.resolve_conj())
    assert made.words([lazy, X, 1]) == made.words([lazy.resolve_conj(), X, 1])
    assert made.each([X, lazy]) == [made.words(X), made.words(lazy)]


def test_what_cannot_be_read_is_told_and_gives_none() -> None:
    told: list[str] = []
    made = Digester(told.append)
    assert made.words([X, torch.ones(2, device="meta")], "aten.add") is None
    assert told == ["aten.add: tensors without data"]


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Digests as if computed on a device: words that are there only after the step."""
    words: list[torch.Tensor] = []

    def digests(tensors: list[torch.Tensor]) -> torch.Tensor:
        rows = [
            [int(digest(t).hex[:16], 16) >> 1, int(digest(t).hex[16:], 16) >> 1] for t in tensors
        ]
        words.append(torch.zeros(len(rows), 2, dtype=torch.int64))
        words.append(torch.tensor(rows))
        return words[-2]

    monkeypatch.setattr(
        module.via_c,
        "operand_digests",
        lambda given, tensors=True: None if tensors else (b"", "", None),
    )
    monkeypatch.setattr(module.Digester, "_is_on_device", staticmethod(lambda tensor: True))
    monkeypatch.setattr(module.via_cuda, "digests", digests)
    return words


def test_words_on_a_device_are_read_once_a_step_and_in_order(on_device: list[torch.Tensor]) -> None:
    writer = Memory(Path(), TraceMeta("op", True, None, "", {}, ""))
    sink, made = Sink(writer), Digester(refused)
    site = Site("forward", "op", "aten.add")
    early: Words = (1, 2)
    sink.add(site, early)
    both, single = made.words([X, X * 2]), made.words(X)
    assert isinstance(both, Pending)
    sink.add(site, both, inputs=single)
    sink.add(site, early, value=torch.tensor(2.5))
    sink.add(site, made.joined([single, early]))
    for one in made.each([X, X * 2]):
        sink.add(site, one)
    assert [record.outputs for record in writer.records] == [early]
    for there, computed in zip(on_device[::2], on_device[1::2], strict=True):
        there.copy_(computed)
    sink.end_step()
    rows = [[(a, b) for a, b in words.tolist()] for words in on_device[1::2]]
    assert [record.outputs for record in writer.records] == [
        early,
        combined(rows[0]),
        early,
        combined([rows[1][0], early]),
        *rows[2],
    ]
    assert writer.records[1].inputs == rows[1][0]
    assert writer.records[2].value == 2.5
    assert [record.number for record in writer.records] == list(range(6))


def test_one_row_settles_to_itself() -> None:
    writer = Memory(Path(), TraceMeta("op", True, None, "", {}, ""))
    sink = Sink(writer)
    sink.add(Site("forward", "op", "x"), Pending([OnDevice(torch.tensor([[5, -6]]), 0)]))
    sink.close()
    assert writer.records[0].outputs == (5, -6)
