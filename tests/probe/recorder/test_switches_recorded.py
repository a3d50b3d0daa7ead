"""A switch that changed leaves a record at the next step's start, with both values."""

from __future__ import annotations

import pytest
import torch
from fake_writer import FakeWriter

from nondet_probe.env import deterministic_algorithms, thread_count
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.recorder.switches import Switches
from nondet_probe.records.trace import Site


def test_only_what_changed_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.delenv("OMP_SCHEDULE", raising=False)
    writer = FakeWriter("step")
    sink = Sink(writer)
    with Switches(sink), thread_count(2):
        with thread_count(3):  # in the setup, and back: nothing to tell
            pass
        torch.set_num_threads(2)
        sink.begin_step_if_setup()
        begun = len(writer.records)
        sink.end_step()
        with deterministic_algorithms(fill=False):
            monkeypatch.setenv("OMP_SCHEDULE", "static")
            monkeypatch.delenv("MKL_CBWR")
            sink.end_step()
        sink.end_step()
    sink.close()
    told = [(r.step, r.site.name, r.site.note) for r in writer.records[begun:]]
    mode = "torch.use_deterministic_algorithms"
    fill = "torch.utils.deterministic.fill_uninitialized_memory"
    assert told == [
        (2, "MKL_CBWR", "MKL_CBWR: AVX2 -> not set"),
        (2, "OMP_SCHEDULE", "OMP_SCHEDULE: not set -> static"),
        (2, mode, f"{mode}: False -> True"),
        (2, fill, f"{fill}: True -> False"),
        (3, mode, f"{mode}: True -> False"),
        (3, fill, f"{fill}: False -> True"),
    ]
    assert {(r.site.phase, r.site.kind) for r in writer.records} <= {("data", "environment")}
    on, off = writer.records[begun + 2], writer.records[begun + 4]
    assert (on.inputs, on.outputs) == (off.outputs, off.inputs)


def test_what_the_setup_set_is_told_before_what_it_computed() -> None:
    writer = FakeWriter("step")
    sink = Sink(writer)
    op = Site("setup", "op", "aten.add.Tensor")
    with thread_count(2), Switches(sink):
        sink.add(op, (1, 1))
        with thread_count(1):
            sink.add(op, (1, 1))
    told = [(r.step, r.site.phase, r.site.name) for r in writer.records]
    switch = (-1, "setup", "torch.get_num_threads")
    assert told == [(-1, "setup", op.name), switch, (-1, "setup", op.name)]


def test_what_the_setup_set_is_told_at_the_first_step() -> None:
    writer = FakeWriter("step")
    sink = Sink(writer)
    with thread_count(2), Switches(sink):
        with thread_count(1):
            sink.begin_step_if_setup()
        sink.end_step()
    name = "torch.get_num_threads"
    assert [(r.step, r.site.note) for r in writer.records] == [
        (0, f"{name}: 2 -> 1"),
        (1, f"{name}: 1 -> 2"),
    ]
