"""Test data: differences of every kind, written by hand. No figure in here was ever measured."""

from __future__ import annotations

from report_examples import ENVIRONMENT, HOSTILE

from nondet_probe.records import Fix
from nondet_probe.records.difference import (
    Cause,
    Change,
    Root,
    StepCount,
    TraceDifference,
)
from nondet_probe.records.trace import (
    PHASES,
    SETUP,
    Site,
    TraceCost,
    TraceCoverage,
    TraceMeta,
    TraceRecord,
)

OP = Site(
    "backward", "op", "aten.index_put_.default", "encoder.pos_bias", "/home/x/project/model.py", 41
)
SAME = (123, 456)


def meta(**changes: object) -> TraceMeta:
    values = {
        "level": "op",
        "inputs": True,
        "command": ["train.py", "--lr", "0.1"],
        "created": "2026-01-02T03:04:05+00:00",
        "environment": ENVIRONMENT,
        "digest_format": "ndp-digest-1",
        "status": "complete",
        "exit_code": 0,
        "coverage": TraceCoverage(12_345, 310, 42),
        "cost": TraceCost(1.45, 20, 4.2, 1.2),
    }
    return TraceMeta(**(values | changes))


def record(site: Site, outputs: int, inputs: object = SAME, **changes: object) -> TraceRecord:
    values = {"number": 9000, "step": 17, "site": site, "inputs": inputs, "outputs": (outputs, 7)}
    return TraceRecord(**(values | changes))


def root(site: Site = OP, inputs_equal: bool | None = True, **changes: object) -> Root:
    """A root with other outputs; `changes` are those of both records."""
    values = (record(site, 1 << 60, **changes), record(site, -(1 << 60), **changes))
    return Root(*values, inputs_equal)


def grid(first_phase: str = "backward", first: int = 17, steps: int = 20) -> list[StepCount]:
    """Equal until a root in `first_phase` of step `first`, then ever less equal."""
    counts = [StepCount(SETUP, "setup", equal=12)]
    order = [phase for phase in PHASES if phase != "setup"]
    for step in range(steps):
        for place, phase in enumerate(order):
            size = {"data": 4, "forward": 214, "backward": 305, "optimizer": 8, "state": 120}[phase]
            after = (step, place) > (first, order.index(first_phase))
            if (step, phase) == (first, first_phase):
                counts.append(StepCount(step, phase, equal=size - 40, roots=1, propagated=39))
            elif after and phase != "data":
                reached = min(size, size // 3 + size // 6 * (step - first))
                counts.append(StepCount(step, phase, equal=size - reached, propagated=reached))
            else:
                counts.append(StepCount(step, phase, equal=size))
    return counts


def difference(first: Root | None = None, **changes: object) -> TraceDifference:
    shown = (first.a or first.b) if first is not None else None
    values: dict[str, object] = {
        "equal": False,
        "a": "runA",
        "b": "runB",
        "compared": 12_345,
        "alignment": "by module path, op and occurrence",
        "propagated": 214,
        "roots": [first] if first is not None else [],
        "coverage_a": TraceCoverage(12_345, 310, 42),
        "coverage_b": TraceCoverage(12_345, 310, 42),
        "collision_bound": 2.3e-31,
        "steps": grid(),
        "meta_a": meta(),
        "meta_b": meta(created="2026-01-02T03:14:05+00:00"),
    }
    if first is not None and shown is not None:
        values |= {
            "step": shown.step,
            "phase": shown.site.phase,
            "op": shown.site.name,
            "module": shown.site.module,
            "file": shown.site.file,
            "line": shown.site.line,
            "rank": 0,
            "inputs_equal": first.inputs_equal,
        }
    return TraceDifference(**(values | changes))


CAUSE = Cause(
    element=3112,
    elements=4096,
    ulps=2,
    executions=20,
    differing=9,
    text="parallel float atomics at two or more threads",
    tried=[
        Fix("one thread", "torch.set_num_threads(1)", False, 20),
        Fix("deterministic mode", "torch.use_deterministic_algorithms(True)", True, 20, 0.244),
        Fix("another op", "index_add_", False, 0, error="no such overload"),
    ],
    missing=["the time of the op on another machine"],
)

EQUAL = difference(
    equal=True, propagated=0, steps=[StepCount(s, p, equal=5) for s in range(4) for p in PHASES[1:]]
)
REPLAYED = difference(root(), kind="op", cause=CAUSE)
DIGESTS = difference(root(), kind="op")
MORE_ROOTS = difference(root(), kind="op", roots=[root(), root(), root()], rank=3)
INFERRED = difference(Root(*(record(OP, n, None) for n in (1, 2)), True, True), kind="op")
UNKNOWN_INPUTS = difference(Root(*(record(OP, n, None) for n in (1, 2)), None), kind="op")
ENVIRONMENT_DIFFERS = difference(
    root(),
    kind="environment",
    environment=[
        Change("torch.backends.cudnn.benchmark", False, True),
        Change("environment: OMP_NUM_THREADS", "2", None),
    ],
)
SWITCH_LATER = difference(
    root(
        Site("data", "environment", "torch.get_num_threads", note="torch.get_num_threads: 2 -> 1"),
        None,
    ),
    kind="environment",
)
RNG = difference(root(Site("data", "rng", "torch cpu"), None), kind="rng")
SEED = difference(root(Site("data", "rng", "seed of worker 2 of loader 0"), False), kind="rng")
BATCH = difference(root(Site("data", "batch", "loader 0"), False), kind="batch")
SAME_SAMPLES = difference(
    root(Site("data", "batch", "loader 0", note="worker 1"), True), kind="batch"
)
INPUT = difference(root(OP, False), kind="input")
OPTIMIZER = difference(
    root(Site("state", "optimizer", "conv.bias: exp_avg"), None, inputs=None), kind="optimizer"
)
BUFFER = difference(root(Site("state", "buffer", "bn.running_mean"), None), kind="buffer")
MODULE = difference(
    root(Site("forward", "module", "TransformerEncoderLayer", "layers.1", "model.py", 7)), kind="op"
)
GRADIENT = difference(root(Site("backward", "gradient", "conv.bias"), None), kind="op")
LOSS = difference(
    Root(
        record(Site("forward", "loss", "loss"), 1, None, value=2.3125),
        record(Site("forward", "loss", "loss"), 2, None, value=2.3125000001),
        None,
    ),
    kind="op",
)
_WEIGHTS = Site("setup", "parameter", "conv.bias", note="as the step began")
INITIAL_WEIGHTS = difference(root(_WEIGHTS, None, inputs=None, step=0), kind="input")
WEIGHTS_BETWEEN = difference(root(_WEIGHTS, None, inputs=None), kind="input")
WEIGHTS_LEFT = difference(
    root(Site("state", "parameter", "conv.bias"), None, inputs=None), kind="optimizer"
)
LEARNING_RATE = difference(
    Root(
        record(Site("optimizer", "optimizer", "optimizer 0, group 0: lr"), 1, None, value=0.1),
        record(Site("optimizer", "optimizer", "optimizer 0, group 0: lr"), 2, None, value=0.2),
        None,
    ),
    kind="optimizer",
)
DRAWING = difference(
    root(
        Site(
            "forward",
            "rng",
            "torch cpu",
            "drop",
            "model.py",
            9,
            "as aten.bernoulli_.float draws from it",
        ),
        None,
        inputs=None,
    ),
    kind="rng",
)
WORKER = difference(root(Site("data", "rng", "numpy of worker 1 of loader 0"), True), kind="rng")
NORM = difference(
    root(Site("backward", "gradient", "gradient norm"), None, inputs=None, value=0.5), kind="op"
)
SWITCH_ALONE = difference(
    Root(
        record(
            Site(
                "data",
                "environment",
                "torch.get_num_threads",
                note="torch.get_num_threads: 2 -> 1",
            ),
            1,
        ),
        None,
        None,
    ),
    kind="environment",
)
ORDER = difference(
    Root(record(OP, 1), None, None),
    kind="order",
    propagated=0,
    not_aligned_a={"backward: aten.index_put_.default": 3, "forward: aten.relu.default": 1},
    not_aligned_b={"forward: aten.relu.default": 2},
    alignment="by module path, op and occurrence, then by the longest common sequence",
)
NOTHING = difference(equal=True, compared=0, propagated=0, steps=[])
UNFINISHED = difference(unfinished=True, propagated=0, steps=EQUAL.steps)
BARE = TraceDifference(False, "a", "b", 3, "by place")
NOT_COVERED = difference(
    equal=True,
    propagated=0,
    coverage_b=TraceCoverage(10, 1, 1, {"a captured graph": 2, "another thread": 1}),
    environment=[Change("versions: torch", "2.12.0", "2.13.0")],
    warnings=["the runs were recorded on different machines"],
    meta_b=meta(
        status="failed",
        failure="killed",
        inputs=False,
        holds_tensors=True,
        names="conv.*",
        cost=None,
        caveats=["a caveat"],
    ),
)
STEP_LEVEL = difference(GRADIENT.roots[0], kind="op", meta_a=meta(level="step", command=None))
STEP_LEVELS = difference(
    GRADIENT.roots[0], kind="op", meta_a=meta(level="step"), meta_b=meta(level="step")
)
LONG = difference(root(step=900), kind="op", steps=grid(first=900, steps=1000))
MANY = difference(
    root(),
    kind="op",
    roots=[root() for _ in range(80)],
    more_roots=17,
    environment=[Change(f"switch {i}", i, -i) for i in range(70)],
    not_aligned_a={f"forward: op {i}": i + 1 for i in range(70)},
)

_FOUL = Site(HOSTILE, "op", HOSTILE, "<script>alert(1)</script>", '/a/it\'s "here".py', 3, HOSTILE)
HOSTILE_TRACES = difference(
    root(_FOUL),
    kind=HOSTILE,
    a=HOSTILE,
    b=HOSTILE,
    alignment=HOSTILE,
    not_aligned_a={HOSTILE: 1},
    environment=[Change(HOSTILE, HOSTILE, [HOSTILE])],
    coverage_a=TraceCoverage(1, 1, 1, {HOSTILE: 3}),
    warnings=[HOSTILE],
    steps=[StepCount(0, HOSTILE, 1, 1, 1, 1, 1)],
    cause=Cause(
        1, 2, 3, 4, 5, HOSTILE, [Fix(HOSTILE, HOSTILE, True, 2, 1.0, None, HOSTILE)], [HOSTILE]
    ),
    meta_a=meta(
        level=HOSTILE,
        command=[HOSTILE],
        created=HOSTILE,
        status=HOSTILE,
        failure=f"{HOSTILE}\n\x1b[31m\u202e\ud800",
        names=HOSTILE,
        caveats=[HOSTILE],
        environment={HOSTILE: {HOSTILE: HOSTILE}},
    ),
)

CASES = {
    name.lower(): value
    for name, value in list(globals().items())
    if isinstance(value, TraceDifference)
}
