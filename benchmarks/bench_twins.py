"""Many twins at once: a step of the stacked engine beside 32 plain steps, one after the other.

python -m pytest benchmarks/bench_twins.py --benchmark-enable

31 twins and a control, two threads; the network is 64-64-10 on images of 8 x 8, SGD with momentum.
To the 32 members the stacked engine adds the unperturbed one, a step of the plain run, the
comparison of the control and the keeping of the random streams.

Predicted for batches of 256. Five products of 256 rows make 5.2 Mflop a member, so 173 for 33 of
them: 3.5 ms of one core at the 50 Gflop/s that such small ones get. Log-softmax takes 1.9 ms there
and back, since rows of 10 are no whole vector, and the activations, 2.2 MB each, some 1.5 ms. The
Python is paid once, 1.2 ms. All but that on two cores: 4.7 ms. A plain step takes 0.35 ms, half of
it Python and the starting of small calls, so 32 take 11 ms: 0.42 of the sequential time. Batches of
32 have an eighth of the arithmetic: 1.7 ms beside 8, which is 0.21. What stacking saves is what a
step costs beside its arithmetic, so it is the batch that decides.

Processor time on one thread, where a busy machine does not show: 9.5 ms beside 13.4 (0.71) and 3.5
beside 9.5 (0.37). Of the 9.5, 7.9 are the members' forward and backward pass, of which the products
take 4.4 (that for the gradient of the last layer 1.0, five times what the same product takes with
its operands the other way round) and log-softmax 1.9; the plain run takes 0.4, the optimizer 0.3,
the control 0.3 and the random streams 0.3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count, cycle

import pytest
import torch
from _harness import Row, Spread, interleave, keep_memory, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.env import thread_count
from nondet_probe.probe.drive import Batches, build, guarded_step
from nondet_probe.probe.members import Members
from nondet_probe.probe.stacked import TWINS, StackedLockstep
from nondet_probe.workload import Workload, WorkloadFactory

ROUNDS = 60
THREADS = 2
CHANGED = 31
PLAIN = CHANGED + 1
BOUND = 0.35

keep_memory()


def mlp(batch: int, seed: int) -> Workload:
    """Random images: what is timed does not depend on what they show."""
    own = torch.Generator().manual_seed(seed)
    batches = [
        (torch.rand(batch, 64, generator=own), torch.randint(10, (batch,), generator=own))
        for _ in range(5)
    ]
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    return Workload(
        model,
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        cycle(batches),
        lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
    )


def plain_steps(factory: WorkloadFactory) -> Callable[[], None]:
    workload = build(factory, 0)
    batches = Batches(workload, ROUNDS)

    def steps() -> None:
        for _ in range(PLAIN):
            guarded_step(workload, batches.draw(0), 0)

    return steps


def stacked_step(factory: WorkloadFactory) -> Callable[[], None]:
    builds = [build(factory, 0) for _ in range(3)]
    copies = StackedLockstep(*builds, [("0.weight", place, 20) for place in range(CHANGED)])
    batches, steps = Batches(copies.run, ROUNDS), count()
    return lambda: copies.step(next(steps), batches)


def members_alone(factory: WorkloadFactory) -> Callable[[], object]:
    """The step of all members, with nothing else around it."""
    workload = build(factory, 0)
    members, batches = Members(workload, TWINS + CHANGED), Batches(workload, ROUNDS)
    return lambda: members.step(batches.draw(0))


@pytest.mark.parametrize("batch", [256, 32])
def test_stacked_twins(benchmark: BenchmarkFixture, batch: int) -> None:
    factory = partial(mlp, batch)
    with thread_count(THREADS):
        calls = {
            "stacked": stacked_step(factory),
            "members alone": members_alone(factory),
            "plain steps": plain_steps(factory),
        }
        times = interleave(calls, ROUNDS)
        benchmark.pedantic(calls["stacked"], rounds=5)
    op = f"{PLAIN} copies of an MLP, batch {batch}"
    shape = ("float32", batch * 64, THREADS)
    rows = [
        Row(op, name, *shape, "time", "s", Spread.of(seconds)) for name, seconds in times.items()
    ]
    found = {name: ratios(times[name], times["plain steps"]) for name in calls}
    rows += [
        Row(op, name, *shape, "time over sequential", "x", found[name])
        for name in ("stacked", "members alone")
    ]
    write_rows("twins", rows)
    assert found["stacked"].median <= BOUND
