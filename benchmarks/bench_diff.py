"""`diff` of two traces of a million records: seconds and memory of a process for that alone.

python -m pytest benchmarks/bench_diff.py --benchmark-enable

Processor is the time that one took, which a busy machine changes less than the time that passed.
Bytes are the largest resident size of the process, torch and all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _harness import Row, Spread, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.bits import DIGEST_FORMAT
from nondet_probe.probe.differ import diff_traces
from nondet_probe.records.trace import Site, TraceMeta
from nondet_probe.records.trace_reader import open_trace
from nondet_probe.records.trace_writer import TraceWriter

RECORDS = 1_000_000
PER_STEP = 1000
OPS = 40
ROUNDS = 3
SECONDS, BYTES, BYTES_A_RECORD = 5.0, 1e9, 64

PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from nondet_probe.probe.differ import diff_traces
from nondet_probe.records.trace_reader import open_trace

start, used = time.perf_counter(), time.process_time()
a, b = (open_trace(Path(name)) for name in sys.argv[1:])
opened = time.perf_counter()
found = diff_traces(a, b)
end = time.perf_counter()
print(json.dumps({
    "read": opened - start, "diff": end - opened, "total": end - start,
    "processor": time.process_time() - used,
    "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "compared": found.compared, "roots": len(found.roots) + found.more_roots,
    "propagated": found.propagated, "alone": sum(found.not_aligned_a.values()),
}))
"""


def write(directory: Path, table: np.ndarray, skip: int | None = None) -> Path:
    """A trace of rows (in0, in1, out0, out1); skip: the op of each step that is left out."""
    meta = TraceMeta("op", True, ["train.py"], "", {}, DIGEST_FORMAT, status="complete")
    writer = TraceWriter(directory, meta)
    sites = [
        writer.site(
            Site("forward", "op", f"aten.op{n % OPS}.default", f"net.{n // OPS}", "m.py", n)
        )
        for n in range(PER_STEP)
    ]
    for number, (a, b, c, d) in enumerate(table.tolist()):
        step, place = divmod(number, PER_STEP)
        if place != skip:
            writer.add(step, sites[place], (a, b), (c, d))
    writer.close()
    return directory


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Traces that are equal; of which the last tenth of each step differs; and of which one lacks
    an op in every step, after which all differ."""
    folder = tmp_path_factory.mktemp("traces")
    rng = np.random.default_rng(0)
    table = rng.integers(-(2**63), 2**63, size=(RECORDS, 4), dtype=np.int64)
    tenth = table.copy()
    places = np.arange(RECORDS) % PER_STEP
    tenth[places >= PER_STEP * 9 // 10] ^= 1
    tenth[places == PER_STEP * 9 // 10, :2] ^= 1  # a root: its inputs are those of the other
    after = table.copy()
    after[places > PER_STEP // 2] ^= 1
    first = write(folder / "a", table)
    size = (first / "rank_00000.sqlite").stat().st_size / RECORDS
    write_rows("diff", [row("trace", "size", "B/record", Spread.single(size, 1))])
    assert size < BYTES_A_RECORD
    return {
        "equal": (first, write(folder / "b", table)),
        "a tenth differs": (first, write(folder / "c", tenth)),
        "an op less in each step": (first, write(folder / "d", after, PER_STEP // 2)),
    }


def row(provider: str, metric: str, unit: str, spread: Spread) -> Row:
    return Row("diff", provider, "-", RECORDS, 1, metric, unit, spread)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("equal", {"roots": 0, "propagated": 0, "alone": 0}),
        ("a tenth differs", {"roots": 1000, "propagated": 99_000, "alone": 0}),
        ("an op less in each step", {"roots": 1, "propagated": 499_000, "alone": 1000}),
    ],
)
def test_diff(
    benchmark: BenchmarkFixture,
    pairs: dict[str, tuple[Path, Path]],
    name: str,
    expected: dict[str, int],
) -> None:
    command = [sys.executable, "-c", PROGRAM, *map(str, pairs[name])]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(ROUNDS)
    ]
    assert {key: runs[0][key] for key in expected} == expected
    units = {"read": "s", "diff": "s", "total": "s", "processor": "s", "bytes": "B"}
    spreads = {metric: Spread.of([run[metric] for run in runs]) for metric in units}
    write_rows("diff", [row(name, metric, units[metric], spreads[metric]) for metric in units])
    a, b = (open_trace(path) for path in pairs[name])
    benchmark.pedantic(diff_traces, (a, b), rounds=3)
    assert min(run["total"] for run in runs) < SECONDS
    assert max(run["bytes"] for run in runs) < BYTES
