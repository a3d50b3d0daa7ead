"""A generator that nobody seeded differs in every process; only draws from it matter."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import nondet_probe as ndp
from nondet_probe.env.rng import preserved_rng
from nondet_probe.probe.differ import diff_traces
from nondet_probe.records.difference import TraceDifference
from nondet_probe.records.trace_reader import open_trace


def train(out: Path, seed: int, draw: bool) -> None:
    with preserved_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(0)
        with ndp.record(out, level="op"):
            model = torch.nn.Linear(4, 4)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.randn(2, 4)).sum().backward()
                optimizer.step()
                if draw:
                    random.random()


def compared(folder: Path, draw: bool) -> TraceDifference:
    for seed in (1, 2):
        train(folder / str(seed), seed, draw)
    return diff_traces(open_trace(folder / "1"), open_trace(folder / "2"))


def test_states_that_nothing_is_drawn_from_do_not_differ(tmp_path: Path, one_thread: None) -> None:
    found = compared(tmp_path, draw=False)
    assert found.equal
    (told,) = [text for text in found.warnings if "generator" in text]
    assert told.startswith("the generators numpy and python were in other states")


def test_draws_that_nothing_came_of_do_not_make_a_difference(
    tmp_path: Path, one_thread: None
) -> None:
    found = compared(tmp_path, draw=True)
    assert found.equal
    told = [text for text in found.warnings if "generator" in text]
    assert told[0].startswith("the generator numpy was in other states")
    assert told[1] == (
        "the generator python was in other states all along and drawn from; nothing that "
        "was recorded came of it"
    )


@pytest.mark.parametrize("draw", [False, True])
def test_the_trace_says_who_was_idle(draw: bool, tmp_path: Path, one_thread: None) -> None:
    train(tmp_path / "run", 1, draw)
    # Weights and batches are drawn from torch's.
    expected = ["numpy"] if draw else ["python", "numpy"]
    assert open_trace(tmp_path / "run").meta.idle == expected
