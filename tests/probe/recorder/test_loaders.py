"""Batches, their samples and their workers' seeds are recorded, and nothing is drawn otherwise."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_writer import FakeWriter
from loader_data import Noisy, Stream, fails, reseed_numpy
from torch.utils.data import DataLoader, WeightedRandomSampler

from nondet_probe.env import preserved_rng, seed_all
from nondet_probe.env.torch_private import loader_methods
from nondet_probe.probe.recorder.loaders import Loaders
from nondet_probe.probe.recorder.sink import Sink

Epochs = Callable[[], list[Any]]


def epochs(loader: DataLoader[Any], count: int = 2) -> list[Any]:
    found = []
    for _ in range(count):
        found.append(list(loader))
        found.append(torch.rand(1))
    return found


def stops_early() -> list[Any]:
    loader = DataLoader(Noisy(), 2, shuffle=True, num_workers=2, persistent_workers=True)
    found = []
    for _ in range(2):
        for batch in loader:
            found.append(batch)
            if len(found) % 2 == 0:
                break
    return found


def nested() -> list[Any]:
    outer, inner = DataLoader(Noisy(), 6, shuffle=True), DataLoader(Noisy(), 4, shuffle=True)
    return [(one, list(inner)) for one in outer]


WAYS: dict[str, Epochs] = {
    "plain": lambda: epochs(DataLoader(Noisy(), 5, shuffle=True)),
    "one by one": lambda: epochs(DataLoader(Noisy(), batch_size=None)),
    "workers": lambda: epochs(DataLoader(Noisy(), 2, shuffle=True, num_workers=2)),
    "as they come": lambda: sorted(
        epochs(DataLoader(Noisy(), 12, num_workers=2, in_order=False)), key=repr
    ),
    "persistent": lambda: epochs(
        DataLoader(Noisy(), 5, num_workers=2, persistent_workers=True, prefetch_factor=1)
    ),
    "iterable": lambda: epochs(DataLoader(Stream(), 2)),
    "iterable, workers": lambda: epochs(DataLoader(Stream(), 2, num_workers=2)),
    "own generator": lambda: epochs(
        DataLoader(Noisy(), 5, shuffle=True, generator=torch.Generator().manual_seed(3))
    ),
    "sampler": lambda: epochs(
        DataLoader(Noisy(), 5, sampler=WeightedRandomSampler([1.0] * 12, 12))
    ),
    "stops early": stops_early,
    "nested": nested,
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with preserved_rng():
        seed_all(7)
        yield


def recorded(body: Callable[[], Any]) -> tuple[FakeWriter, Any]:
    writer = FakeWriter()
    sink = Sink(writer)
    with Loaders(sink):
        result = body()
    sink.close()
    return writer, result


def state() -> list[Any]:
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


@pytest.mark.parametrize("way", WAYS)
def test_recording_changes_nothing_and_two_recordings_are_equal(way: str) -> None:
    plain = repr(WAYS[way]())
    after = state()
    seed_all(7)
    first, result = recorded(WAYS[way])
    assert repr(result) == plain
    assert state() == after
    seed_all(7)
    second, _ = recorded(WAYS[way])
    assert first.records == second.records
    assert first.named("batch")
    assert all(record.step == 0 for record in first.records)
    assert not first.meta.coverage.not_covered
    for kind, name in loader_methods() or ():
        assert not hasattr(vars(kind)[name], "__wrapped__")


def test_a_batch_has_its_loader_worker_and_samples() -> None:
    def body() -> None:
        loader = DataLoader(Noisy(), 4, num_workers=2)
        list(loader)
        list(DataLoader(Noisy(), 6))
        list(loader)

    writer, _ = recorded(body)
    batches = writer.named("batch")
    assert [(b.site.name, b.site.note) for b in batches] == [
        ("loader 0", "worker 0"),
        ("loader 0", "worker 1"),
        ("loader 0", "worker 0"),
        ("loader 1", None),
        ("loader 1", None),
        ("loader 0", "worker 0"),
        ("loader 0", "worker 1"),
        ("loader 0", "worker 0"),
    ]
    # Other workers, so other noise, on the same samples.
    assert [b.inputs for b in batches[:3]] == [b.inputs for b in batches[5:]]
    assert len({b.inputs for b in batches}) == 5
    assert len({b.outputs for b in batches}) == 8


def test_another_order_of_samples_is_seen() -> None:
    one, _ = recorded(lambda: list(DataLoader(Noisy(), 4, sampler=range(12))))
    other, _ = recorded(lambda: list(DataLoader(Noisy(), 4, sampler=[1, 0, *range(2, 12)])))
    pairs = list(zip(one.named("batch"), other.named("batch"), strict=True))
    assert [a.inputs == b.inputs for a, b in pairs] == [False, True, True]


def test_what_a_worker_drew_comes_before_its_first_batch() -> None:
    writer, _ = recorded(lambda: list(DataLoader(Noisy(), 4, num_workers=2)))
    whose = ["seed", "python", "numpy", "torch cpu"]
    assert [record.site.name for record in writer.records] == [
        "base seed of loader 0",
        *(f"{name} of worker 0 of loader 0" for name in whose),
        "loader 0",
        *(f"{name} of worker 1 of loader 0" for name in whose),
        "loader 0",
        "loader 0",
    ]


def differing(one: FakeWriter, other: FakeWriter) -> list[tuple[str, bool]]:
    """Name of each record whose output differs, with whether its inputs are equal."""
    return [
        (a.site.name, a.inputs == b.inputs)
        for a, b in zip(one.records, other.records, strict=True)
        if a.outputs != b.outputs
    ]


def test_another_seed_is_the_root_of_all_that_a_worker_does() -> None:
    def body(seed: int) -> Callable[[], Any]:
        def run() -> Any:
            return list(
                DataLoader(Noisy(), 6, num_workers=1, generator=torch.Generator().manual_seed(seed))
            )

        return run

    one, _ = recorded(body(3))
    other, _ = recorded(body(4))
    found = differing(one, other)
    # Only the generator differs of itself; all else comes from it, the noise of the batches too.
    assert found[0] == ("generator of loader 0", True)
    assert found[1:6] == [
        (f"{name} of {'worker 0 of ' * (name != 'base seed')}loader 0", False)
        for name in ("base seed", "seed", "python", "numpy", "torch cpu")
    ]
    assert [name for name, _ in found[6:]] == ["loader 0"] * 2


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_what_a_worker_init_fn_left_is_seen(context: str) -> None:
    def body(function: Any) -> Callable[[], Any]:
        def run() -> Any:
            loader = DataLoader(
                Noisy(), 6, num_workers=1, worker_init_fn=function, multiprocessing_context=context
            )
            batches = list(loader)
            assert loader.worker_init_fn is function
            return batches

        return run

    one, _ = recorded(body(None))
    seed_all(7)
    other, _ = recorded(body(reseed_numpy))
    assert one.meta.coverage.not_covered == other.meta.coverage.not_covered == {}
    assert differing(one, other) == [
        ("numpy of worker 0 of loader 0", True),
        ("loader 0", True),
        ("loader 0", True),
    ]


def test_a_worker_that_fails_says_so_as_before() -> None:
    loader = DataLoader(Noisy(), 6, num_workers=1, worker_init_fn=fails)
    with pytest.raises(ValueError, match="worker 0 has no data"):
        recorded(lambda: list(loader))


def test_generators_handed_to_loaders_are_recorded_at_each_step() -> None:
    writer = FakeWriter()
    sink = Sink(writer)
    with Loaders(sink):
        own, samplers = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
        sampler = WeightedRandomSampler([1.0] * 12, 12, generator=samplers)
        loader = DataLoader(Noisy(), 6, sampler=sampler, generator=own)
        for _ in loader:
            sink.end_step()
        own.manual_seed(5)
        sink.end_step()
    names = [(r.step, r.site.name) for r in writer.named("rng") if "generator" in r.site.name]
    each = ["generator of loader 0", "generator of the sampler of loader 0"]
    assert names == [(step, name) for step in range(4) for name in each]
    states = [r.outputs for r in writer.named("rng") if r.site.name == each[0]]
    assert states[0] == states[1] == states[2] != states[3]


def test_an_iterator_made_before_the_recording() -> None:
    loader = iter(DataLoader(Noisy(), 4, num_workers=1, prefetch_factor=1))
    writer, _ = recorded(lambda: list(loader))
    assert [r.site.name for r in writer.named("batch")] == ["loader 0"] * 3
    # The first batch's samples had been drawn.
    assert [r.inputs is None for r in writer.named("batch")] == [True, False, False]
    assert list(writer.meta.coverage.not_covered) == [
        "random generators of a loader's worker, which left no report"
    ]


def test_other_threads_and_forked_children_draw_as_ever() -> None:
    drawn: list[Any] = []

    def body() -> None:
        thread = threading.Thread(target=lambda: drawn.extend(DataLoader(Noisy(), 6)))
        thread.start()
        thread.join()
        child = os.fork()
        if child == 0:
            os._exit(len(list(DataLoader(Noisy(), 4))))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

    writer, _ = recorded(body)
    assert len(drawn) == 2
    assert not writer.records
    assert writer.meta.coverage.not_covered == {"batches drawn on other threads": 3}


def test_what_cannot_be_read_in_a_batch_is_counted() -> None:
    def collate(samples: list[Any]) -> Any:
        return [samples, lambda: None]

    writer, _ = recorded(lambda: list(DataLoader(Noisy(), 6, collate_fn=collate)))
    assert writer.meta.coverage.not_covered == {"in batches: a value of type function": 2}


def test_without_torchs_private_names_batches_are_told_to_be_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.utils.data.dataloader, "_BaseDataLoaderIter", object)
    assert loader_methods() is None
    writer, _ = recorded(lambda: None)
    assert any("batches are not seen" in caveat for caveat in writer.meta.caveats)


def test_the_reports_of_workers_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recorded(lambda: list(DataLoader(Noisy(), 6, num_workers=1)))
    assert not list(tmp_path.iterdir())
