from __future__ import annotations

import os
from itertools import islice

import pytest
import torch

from nondet_probe.env.rng import RngState, seed_all
from nondet_probe.env.switches import deterministic_algorithms, thread_count
from nondet_probe.workload import Workload, take_step
from nondet_probe.workloads._batches import Batch
from nondet_probe.workloads._snippets import LOOKUPS, ROWS
from nondet_probe.workloads.snippets_hashed import DIM, SnippetNet, snippets_hashed

two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="threads race only where two run at once"
)
REPEATS = 20


def built(seed: int) -> Workload:
    seed_all(seed)
    return snippets_hashed(seed)


def table_gradient(workload: Workload, batch: Batch) -> torch.Tensor:
    """Bits of the table's gradient, int32."""
    workload.model.zero_grad()
    workload.loss(workload.model, batch).backward()
    assert isinstance(workload.model, SnippetNet)
    assert workload.model.table.grad is not None
    return workload.model.table.grad.view(torch.int32)


def differing(workload: Workload, batch: Batch) -> int:
    """Of REPEATS backward passes on the same bits, how many differ from the first one."""
    first = table_gradient(workload, batch)
    return sum(not torch.equal(first, table_gradient(workload, batch)) for _ in range(REPEATS))


@two_cores
def test_the_race_shows_in_every_step() -> None:
    workload = built(0)
    with thread_count(2):
        for batch in islice(workload.batches, 3):
            assert differing(workload, batch) > REPEATS // 2
            take_step(workload, batch)


@pytest.mark.parametrize(("threads", "deterministic"), [(1, False), (2, True)])
def test_what_ends_the_race(threads: int, deterministic: bool) -> None:
    workload = built(0)
    batch = next(iter(workload.batches))
    with thread_count(threads), deterministic_algorithms(deterministic):
        assert differing(workload, batch) == 0


def test_equal_gradients_hide_the_race() -> None:
    # Sums of ones are exact, so the order in which the threads add cannot be seen.
    workload = built(0)
    workload.loss = lambda model, batch: model.table[batch[0]].sum()
    with thread_count(2):
        assert differing(workload, next(iter(workload.batches))) == 0


@pytest.mark.parametrize(("threads", "deterministic"), [(1, False), (2, True)])
def test_whole_runs_repeat_without_the_race(threads: int, deterministic: bool) -> None:
    def trained() -> list[torch.Tensor]:
        workload = built(0)
        for batch in islice(workload.batches, 3):
            take_step(workload, batch)
        return [value.detach().view(torch.int32) for value in workload.model.parameters()]

    with thread_count(threads), deterministic_algorithms(deterministic):
        assert all(map(torch.equal, trained(), trained()))


def test_a_batch_is_what_it_says_and_large_enough_to_race() -> None:
    rows, weights, labels = next(iter(built(0).batches))
    assert rows.shape == weights.shape == (64, LOOKUPS)
    assert (rows.dtype, weights.dtype, labels.dtype) == (torch.int64, torch.float32, torch.int64)
    assert rows.numel() * DIM == 4_194_304
    assert float(weights.min()) > 0
    lengths = weights.square().sum(1)
    assert float((lengths - 1).abs().max()) < 1e-5


def test_rows_are_soon_all_in_use() -> None:
    used = torch.zeros(ROWS, dtype=torch.bool)
    for rows, *_ in islice(built(0).batches, 10):
        used[rows.flatten()] = True
    assert float(used.float().mean()) > 0.99


def test_data_depends_on_the_seed_alone_and_leaves_the_global_streams_alone() -> None:
    a = built(0)
    b = snippets_hashed(0)
    other = built(1)
    before = RngState.capture()
    for one, same in zip(islice(a.batches, 3), islice(b.batches, 3), strict=True):
        assert all(map(torch.equal, one, same))
    assert RngState.capture().same_as(before)
    assert not torch.equal(next(iter(a.batches))[0], next(iter(other.batches))[0])


def test_weights_depend_on_the_global_stream() -> None:
    first, again, other = (next(built(seed).model.parameters()) for seed in (0, 0, 1))
    assert torch.equal(first.view(torch.int32), again.view(torch.int32))
    assert not torch.equal(first, other)


def test_learns() -> None:
    workload = built(0)
    assert workload.evaluate is not None
    untrained = workload.evaluate(workload.model)["accuracy"]
    labels = torch.cat([batch[-1] for batch in islice(workload.batches, 50)])
    majority = float(torch.bincount(labels).max()) / len(labels)
    for batch in islice(workload.batches, 60):
        take_step(workload, batch)
    assert workload.evaluate(workload.model)["accuracy"] > 4 * max(majority, untrained)
