from __future__ import annotations

import sys
from itertools import islice

import pytest
import torch

from nondet_probe.env.rng import RngState, seed_all
from nondet_probe.env.switches import thread_count
from nondet_probe.errors import UsageError
from nondet_probe.workload import Workload, take_step
from nondet_probe.workloads import digits_cnn as module
from nondet_probe.workloads._digits import digits
from nondet_probe.workloads.digits_cnn import digits_cnn


def built(seed: int) -> Workload:
    seed_all(seed)
    return digits_cnn(seed)


def state(workload: Workload) -> list[torch.Tensor]:
    """Parameters and buffers as integers."""
    found = workload.model.state_dict().values()
    return [
        value.detach().clone().view(torch.int32) if value.is_floating_point() else value.clone()
        for value in found
    ]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def trained(steps: int, workload: Workload) -> list[torch.Tensor]:
    for batch in islice(workload.batches, steps):
        take_step(workload, batch)
    return state(workload)


@pytest.mark.parametrize("threads", [1, 2])
def test_same_bits_every_time_at_a_fixed_thread_count(threads: int) -> None:
    with thread_count(threads):
        first = trained(6, built(0))
        assert same(trained(6, built(0)), first)
        # The offence: dropout masks from a stream that nobody seeded alike.
        workload = built(0)
        torch.rand(1)
        assert not same(trained(6, workload), first)


def test_one_changed_bit_spreads() -> None:
    plain = trained(12, built(0))
    workload = built(0)
    bits = next(workload.model.parameters()).detach().view(torch.int32)
    bits.view(-1)[0] ^= 1
    changed = trained(12, workload)
    different = sum(int((a != b).sum()) for a, b in zip(plain, changed, strict=True))
    assert different > 0.1 * sum(value.numel() for value in plain)


def test_another_seed_is_another_run() -> None:
    a, b = built(0), built(1)
    assert not same(state(a), state(b))
    assert not torch.equal(next(iter(a.batches))[1], next(iter(b.batches))[1])


def test_data_depends_on_the_seed_alone_and_leaves_the_global_streams_alone() -> None:
    a = built(0)
    torch.rand(7)
    b = digits_cnn(0)  # the global stream is elsewhere: other weights, same data
    assert not same(state(a), state(b))
    before = RngState.capture()
    for one, other in zip(islice(a.batches, 7), islice(b.batches, 7), strict=True):
        assert torch.equal(one[0].view(torch.int32), other[0].view(torch.int32))
        assert torch.equal(one[1], other[1])
    assert RngState.capture().same_as(before)


def test_a_batch_is_what_it_says() -> None:
    images, labels = next(iter(built(0).batches))
    assert images.shape == (256, 1, 8, 8)
    assert images.dtype == torch.float32
    assert float(images.min()) == 0.0
    assert float(images.max()) == 1.0
    assert labels.shape == (256,)
    assert set(labels.tolist()) == set(range(10))


def test_shifts_move_by_at_most_one_pixel_every_way() -> None:
    image = torch.zeros(400, 1, 8, 8)
    image[:, 0, 3, 4] = 1.0
    moved = module._shifted(image, torch.Generator().manual_seed(0))
    assert moved.shape == image.shape
    _, _, rows, columns = moved.nonzero(as_tuple=True)
    assert len(rows) == 400  # no pixel lost or doubled
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {
        (row, column) for row in (2, 3, 4) for column in (3, 4, 5)
    }


def test_learns_and_evaluation_leaves_no_trace() -> None:
    workload = built(0)
    assert workload.evaluate is not None
    untrained = workload.evaluate(workload.model)["accuracy"]
    trained(45, workload)
    before, streams = state(workload), RngState.capture()
    assert workload.evaluate(workload.model)["accuracy"] > 0.85 > 0.4 > untrained
    assert same(state(workload), before)
    assert RngState.capture().same_as(streams)
    assert workload.model.training


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'nondet-probe\[workloads\]'"):
        digits_cnn(0)
