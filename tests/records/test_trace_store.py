"""Traces on disk: what is written is read, at any time, by anyone; the bytes are the records'."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nondet_probe.errors import RecordError, UsageError
from nondet_probe.records.trace import SETUP, Site, TraceMeta, TraceRecord
from nondet_probe.records.trace_file import database_name, live_name, meta_name
from nondet_probe.records.trace_reader import Trace, open_trace
from nondet_probe.records.trace_writer import TraceWriter

ADD = Site("forward", "op", "aten.add.Tensor", "net.0", "model.py", 7)
LOSS = Site("forward", "loss", "loss", note="the loss")
LARGEST = 2**63 - 1


def meta(**fields: object) -> TraceMeta:
    return TraceMeta("op", True, ["train.py"], "2026-01-01T00:00:00+00:00", {}, "d", **fields)


def write(directory: Path, steps: int = 2, *, flush_every: int = 1) -> TraceWriter:
    """Two records a step and one of the setup; open still."""
    writer = TraceWriter(directory, meta())
    writer.add(SETUP, writer.site(ADD), None, (0, -1))
    for step in range(steps):
        writer.add(step, writer.site(ADD), (step, -LARGEST - 1), (LARGEST, step))
        writer.add(step, writer.site(LOSS), None, None, 0.5 * step)
        if step % flush_every == 0:
            writer.flush()
    return writer


def finish(directory: Path, **arguments: int) -> Trace:
    writer = write(directory, **arguments)
    writer.meta.status = "complete"
    writer.close()
    return open_trace(directory)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    trace = finish(tmp_path / "run")
    assert list(trace.records()) == [
        TraceRecord(0, SETUP, ADD, None, (0, -1)),
        TraceRecord(1, 0, ADD, (0, -LARGEST - 1), (LARGEST, 0)),
        TraceRecord(2, 0, LOSS, None, None, 0.0),
        TraceRecord(3, 1, ADD, (1, -LARGEST - 1), (LARGEST, 1)),
        TraceRecord(4, 1, LOSS, None, None, 0.5),
    ]
    assert list(trace.records(1)) == list(trace.records())[3:]
    assert trace.sites == [ADD, LOSS]
    assert trace.arrays.has_inputs.tolist() == [False, True, False, True, False]
    assert trace.arrays.has_outputs.tolist() == [True, True, False, True, False]
    assert trace.meta.coverage.records == len(trace) == 5
    assert sorted(os.listdir(tmp_path / "run")) == [meta_name(0), database_name(0)]
    with pytest.raises(IndexError, match="record 5 of 5"):
        trace.record(5)


def test_figures_that_are_not_finite(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", meta())
    for value in (math.nan, math.inf, -math.inf):
        writer.add(0, writer.site(LOSS), None, None, value)
    writer.close()
    values = open_trace(tmp_path / "run").values
    assert [repr(values[number]) for number in range(3)] == ["nan", "inf", "-inf"]


def test_equal_runs_give_equal_files_whenever_they_were_flushed_or_read(tmp_path: Path) -> None:
    finish(tmp_path / "a", steps=50)
    writer = write(tmp_path / "b", steps=50, flush_every=7)
    open_trace(tmp_path / "b")
    writer.close()
    a, b = ((tmp_path / name / database_name(0)).read_bytes() for name in "ab")
    assert a == b
    finish(tmp_path / "c", steps=51)
    assert (tmp_path / "c" / database_name(0)).read_bytes() != a


def test_a_record_takes_less_than_64_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    writer = TraceWriter(tmp_path / "run", meta())
    sites = [writer.site(ADD._replace(line=line)) for line in range(500)]
    words = rng.integers(-(2**63), 2**63, size=(100_000, 4), dtype=np.int64).tolist()
    for number, (a, b, c, d) in enumerate(words):
        writer.add(number // 1000, sites[number % 500], (a, b), (c, d))
    writer.close()
    assert (tmp_path / "run" / database_name(0)).stat().st_size / len(words) < 64


def test_it_is_read_while_it_is_written(tmp_path: Path) -> None:
    writer = write(tmp_path / "run", flush_every=2)
    assert len(open_trace(tmp_path / "run")) == 3  # up to the last flush
    writer.flush()
    assert len(open_trace(tmp_path / "run")) == 5
    writer.close()
    writer.close()
    assert len(open_trace(tmp_path / "run")) == 5


def test_a_reader_in_the_middle_holds_up_nothing(tmp_path: Path) -> None:
    writer = write(tmp_path / "run", flush_every=2)
    reader = sqlite3.connect(tmp_path / "run" / live_name(0), isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM records").fetchone() == (3,)
    for step in range(2, 400):
        writer.add(step, writer.site(ADD), (step, step), (step, step))
        writer.flush()
    writer.close()
    # What it has open is what it saw; whoever comes now finds the finished file alone.
    assert reader.execute("SELECT count(*) FROM records").fetchone() == (3,)
    reader.close()
    assert sorted(os.listdir(tmp_path / "run")) == [meta_name(0), database_name(0)]
    assert len(open_trace(tmp_path / "run")) == 403


def test_a_killed_process_leaves_all_that_it_flushed(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_trace_store import write
writer = write(Path({str(tmp_path / "run")!r}), 3000)
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert (tmp_path / "run" / f"{live_name(0)}-wal").exists()
    trace = open_trace(tmp_path / "run")
    assert len(trace) == 6001
    assert trace.meta.status == "running"
    assert next(trace.records(2999)).outputs == (LARGEST, 2999)


def test_a_forked_child_touches_nothing(tmp_path: Path) -> None:
    """Also an ordinary end of it, in which every object is released, leaves the file alone."""
    program = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_trace_store import ADD, write

run = Path({str(tmp_path / "run")!r})
writer = write(run)

def content():
    return {{name: (run / name).read_bytes() for name in os.listdir(run)}}

before = content()
for leave in (sys.exit, os._exit):
    child = os.fork()
    if child == 0:
        assert writer.add(9, writer.site(ADD), None, (1, 1)) == -1
        writer.flush()
        writer.update()
        writer.close()
        leave(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert content() == before
writer.add(2, writer.site(ADD), None, (5, 5))
writer.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
    assert len(open_trace(tmp_path / "run")) == 6


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    finish(tmp_path / "run")
    with pytest.raises(UsageError, match=r"is not empty \(it holds meta\.json\)"):
        TraceWriter(tmp_path / "run", meta())
    with pytest.raises(UsageError, match="is not a folder"):
        TraceWriter(tmp_path / "run" / meta_name(0), meta())
    assert len(open_trace(tmp_path / "run")) == 5


def test_ranks_of_a_group_share_a_folder(tmp_path: Path) -> None:
    writers = [TraceWriter(tmp_path, meta(rank=rank, world=3)) for rank in (2, 0, 1)]
    for writer in writers:
        writer.add(0, writer.site(ADD), None, (writer.meta.rank, 0))
        writer.close()
    assert [open_trace(tmp_path, rank).record(0).outputs for rank in range(3)] == [
        (0, 0),
        (1, 0),
        (2, 0),
    ]
    assert open_trace(tmp_path).meta.rank == 0
    with pytest.raises(RecordError, match="no rank 3; it holds 0, 1, 2"):
        open_trace(tmp_path, 3)
    with pytest.raises(UsageError, match="nothing is overwritten"):
        TraceWriter(tmp_path, meta(rank=1, world=3))


def test_a_program_without_steps_is_written_all_the_same(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", meta())
    site = writer.site(ADD)
    for number in range(70_000):
        writer.add(SETUP, site, None, (number, number))
    assert 0 < len(open_trace(tmp_path / "run")) < 70_000


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    described = meta()
    described.command = [name]
    writer = TraceWriter(tmp_path / "run", described)
    writer.add(0, writer.site(ADD._replace(file=name)), None, (1, 1))
    writer.close()
    trace = open_trace(tmp_path / "run")
    assert trace.meta.command == [name]
    assert trace.sites[0].file == "caf\\udce9.py"


def test_what_cannot_be_written_is_told_and_kept(tmp_path: Path) -> None:
    writer = write(tmp_path / "run", flush_every=2)
    # As a full disk would.
    pages = writer._connection.execute("PRAGMA page_count").fetchone()[0]
    writer._connection.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(2000):
        writer.add(2, writer.site(ADD), (number, 1), (2, 3))
    with pytest.raises(RecordError, match=r"rank_00000\.live\.sqlite cannot be written: .*full"):
        writer.flush()
    assert len(open_trace(tmp_path / "run")) == 3
    writer._connection.execute("PRAGMA max_page_count = 1000000")
    writer.close()
    assert len(open_trace(tmp_path / "run")) == 2005


def test_meta_is_written_whole(tmp_path: Path) -> None:
    writer = write(tmp_path / "run")
    writer.meta.caveats.append("a second thread was not seen")
    writer.update()
    document = json.loads((tmp_path / "run" / meta_name(0)).read_bytes())
    assert document["trace"]["caveats"] == ["a second thread was not seen"]
    assert document["trace"]["coverage"]["records"] == 5
    assert document["trace"]["status"] == "running"
