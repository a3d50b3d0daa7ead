"""Test data: run records of every case, written by hand. No figure in here was ever measured."""

from __future__ import annotations

import dataclasses

import numpy as np

from nondet_probe.bits import BitChange
from nondet_probe.records import (
    AuditRecord,
    CostArm,
    CostRecord,
    Coverage,
    Fix,
    Growth,
    OpCost,
    OpSite,
    OpStatus,
    RerunRecord,
    RunRecord,
    Setting,
    TwinRecord,
)

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}{% raw %}"

ENVIRONMENT = {
    "machine": {
        "system": "Linux x86_64",
        "cpu": "Example CPU 9000 at 3.1 GHz",
        "cpus": 2,
        "torch_cpu_capability": "AVX512",
        "gpus": [],
    },
    "versions": {"python": "3.11.9", "nondet-probe": "0.1.0", "torch": "2.13.0+cpu"},
    "switches": {
        "torch.use_deterministic_algorithms": False,
        "warn_only": False,
        "torch.utils.deterministic.fill_uninitialized_memory": True,
        "torch.get_num_threads": 2,
        "torch.get_float32_matmul_precision": "highest",
        "environment": {"OMP_NUM_THREADS": "2"},
    },
    "commit": {"id": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
}

PARAMETERS = [
    "features.0.weight",
    "features.0.bias",
    "features.3.weight",
    "features.3.bias",
    "classifier.1.weight",
    "classifier.1.bias",
    "classifier.4.weight",
    "classifier.4.bias",
]


def run(**parts: object) -> RunRecord:
    values = {
        "command": "checkup",
        "target": "digits-cnn",
        "seed": 0,
        "created": "2026-01-02T03:04:05+00:00",
        "environment": ENVIRONMENT,
        "seconds": {"rerun": 3.21, "twin": 14.5, "cost": 2.75},
    }
    return RunRecord(**(values | parts))


def rerun(**changes: object) -> RerunRecord:
    values = {
        "k": 5,
        "steps": 2,
        "threads": 2,
        "losses": [2.31, 2.25],
        "sites": [],
        "coverage": Coverage(seen=312, rerun=214, views=71, allocations=27, not_covered={}),
        "neutral": True,
        "probe_seconds": 0.83,
        "plain_seconds": 0.16,
    }
    return RerunRecord(**(values | changes))


def site(**changes: object) -> OpSite:
    values = {
        "op": "aten.index_put_.default",
        "phase": "backward",
        "module": "table",
        "file": "/home/somebody/project/nondet_probe/workloads/snippets_hashed.py",
        "line": 88,
        "code": "rows = self.table[buckets] * weights[:, None]",
        "calls": 2,
        "differing_calls": 2,
        "executions": 10,
        "differing": 8,
        "elements": 2_097_152,
        "different_elements": 41_873,
        "max_ulp": 1834,
        "shapes": ["float32[65536, 32]", "int64[70000]", "float32[70000, 32]"],
        "fixes": [
            Fix("deterministic mode", "torch.use_deterministic_algorithms(True)", True, 5, 2.84,
                (2.61, 3.02)),
            Fix("index_add_", "grad.index_add_(0, buckets, values)", True, 5, 0.71, (0.66, 0.8)),
            Fix("one thread", "torch.set_num_threads(1)", True, 5, 1.62, (1.5, 1.77)),
        ],
    }  # fmt: skip
    return OpSite(**(values | changes))


def status(**changes: object) -> OpStatus:
    values = {
        "op": "aten.sum.default", "shapes": "float32[1024]", "dtype": "float32", "device": "cpu",
        "calls": 2, "executions": 4,
    }  # fmt: skip
    return OpStatus(**(values | changes))


def audit(**changes: object) -> AuditRecord:
    values = {
        "steps": 2, "k": 2, "suspect_k": 20, "threads": 2, "thread_counts": [1, 2],
        "settings": [
            Setting("torch.use_deterministic_algorithms", "not requested", "off"),
            Setting("threads", "2", "2 for all ops"),
        ],
        "ops": [
            status(other_threads=[1], unwritten=False, with_batch=None),
            status(op="aten.mm.default", other_threads=[], unwritten=False, with_batch=True),
        ],
        "coverage": Coverage(seen=12, rerun=9, views=3),
        "caveats": ["2 threads share 1 processor of this process"],
    }  # fmt: skip
    return AuditRecord(**(values | changes))


LATE = Setting(
    "OMP_NUM_THREADS",
    "4",
    "no",
    "OMP_NUM_THREADS was set too late: it is read when torch is imported",
)


def cost(**changes: object) -> CostRecord:
    noise = np.random.default_rng(3)
    default = 0.021 + 0.001 * noise.random(12)
    arms = [CostArm("default", default.tolist(), 1.0, (1.0, 1.0))]
    for name, times in (("deterministic", 1.09), ("deterministic, no fill", 1.02)):
        ratios = times + 0.06 * noise.random(12)
        low, middle, high = np.percentile(ratios, [25, 50, 75]).tolist()
        arms.append(CostArm(name, (default * ratios).tolist(), middle, (low, high)))
    return CostRecord(**({"steps": 12, "threads": 2, "arms": arms} | changes))


def twin(steps: int = 100, size: int = len(PARAMETERS), **changes: object) -> TwinRecord:
    """One bit grows by about 1.3x a step from 1e-9 until it fills the model."""
    noise = np.random.default_rng(7)
    names = PARAMETERS[:size] + [
        f"model.layers.{i // 6}.self_attn.{'qkvogu'[i % 6]}_proj.weight"
        for i in range(size - len(PARAMETERS))
    ]
    step = np.arange(steps)
    wobble = np.cumsum(noise.normal(0, 0.12, steps))
    distance = np.minimum(
        1e-9 * np.exp(np.minimum(0.26 * step + wobble, 300)), 0.12 * (1 + 0.004 * step)
    )
    fraction = np.minimum(1.0, 2e-5 * np.exp(np.minimum(0.55 * step, 300))) * 0.985
    start = 2 * np.arange(size) % 11
    own = distance[:, None] * np.exp(noise.normal(0, 0.4, (steps, size)))
    own[step[:, None] < start[None, :]] = 0.0
    loss = 2.3 * np.exp(-0.03 * step) + 0.05 * noise.random(steps)
    values = {
        "steps": steps,
        "change": BitChange(
            "features.0.weight", 137, 0, "float32", "0xbd1c27f3", "0xbd1c27f2"
        ),
        "parameters": names,
        "elements": [288] * size,
        "control_identical": True,
        "half_step": 19,
        "growth": Growth(0.262, 0.251, 0.273, 2, 70, 0.987, 2.65),
        "evaluation": {"accuracy": 0.9417},
        "evaluation_twin": {"accuracy": 0.9389},
        "probe_seconds": 14.2,
        "plain_seconds": 4.8,
        "series": {
            "distance": distance,
            "fraction": fraction,
            "max_ulp": np.minimum(2.0 ** np.minimum(step + 1, 40), 2.0**31).astype(np.int64),
            "loss": loss,
            "loss_twin": loss + distance * noise.normal(0, 0.3, steps),
            "control": np.zeros(steps),
            "param_distance": own,
            "param_fraction": np.minimum(own * 1e4, 1.0),
            "param_max_ulp": np.ones((steps, size), dtype=np.int64),
        },
    }  # fmt: skip
    return TwinRecord(**(values | changes))


def noisy_twin(**changes: object) -> TwinRecord:
    """The control leaves the run at the first step: the run itself is nondeterministic."""
    quiet = twin()
    step = np.arange(quiet.steps)
    noise = np.random.default_rng(11)
    distance = 1e-7 * np.minimum(np.exp(0.1 * step), 1e5) * np.exp(noise.normal(0, 0.1, len(step)))
    series = quiet.series | {
        "distance": distance,
        "fraction": np.minimum(0.02 * (1 + step), 0.97),
        "control": np.minimum(0.018 * (1 + step), 0.96),
    }
    values = {
        "control_identical": False,
        "control_differs_step": 0,
        "control_differs_name": "table.weight",
        "growth": None,
        "no_growth": "the run itself is nondeterministic, so the twin shows that and not the bit",
        "series": series,
    }
    return dataclasses.replace(quiet, **(values | changes))


def absorbed_twin() -> TwinRecord:
    """The bit wanders for a while and dies at step 12."""
    live = twin(40)
    for name in ("distance", "fraction", "max_ulp", "param_distance", "param_fraction"):
        live.series[name] = live.series[name] * (np.arange(40) < 12).reshape(
            (-1,) + (1,) * (live.series[name].ndim - 1)
        )
    live.series["distance"][:12] = 3e-9
    live.series["loss_twin"] = live.series["loss"].copy()
    return dataclasses.replace(
        live, absorbed_step=12, half_step=None, growth=None, no_growth="the change was absorbed"
    )


def strange_twin() -> TwinRecord:
    """Values no plot expects: NaN, infinity, gaps."""
    odd = twin(30)
    for name, values in odd.series.items():
        if values.dtype == np.float64:
            values[5:8] = np.nan
            values[20:] = np.inf if name != "loss" else np.nan
    return dataclasses.replace(odd, growth=None, no_growth="the distance is not finite")


def empty_twin() -> TwinRecord:
    """A run that failed before its first step was done."""
    series = {name: values[:0] for name, values in twin().series.items()}
    return twin(steps=0, half_step=None, growth=None, no_growth="no step was done", series=series)


CLEAN = run(rerun=rerun(), twin=twin(), cost=cost())

NONDETERMINISTIC = run(
    target="snippets-hashed",
    rerun=rerun(
        sites=[site()],
        verified_fix="deterministic mode",
        neutral=None,
        coverage=Coverage(118, 86, 24, 6, {"a custom op outside of the dispatcher": 2}),
        probe_seconds=6.02,
        plain_seconds=1.31,
    ),
    twin=noisy_twin(),
    twin_fixed=twin(under="deterministic mode"),
    cost=cost(),
)

FAILED = run(
    status="failed",
    failure="twin: step 7 failed: RuntimeError: shapes (3, 4) and (5, 6) do not fit.",
    failed_step=7,
    rerun=rerun(),
    twin=twin(steps=7, half_step=None, growth=None, no_growth="too few steps"),
)

ONLY_RERUN = run(command="rerun", rerun=rerun())
ONLY_TWIN = run(command="twin", twin=twin())
ABSORBED = run(command="twin", twin=absorbed_twin())
ONE_THREAD = run(
    rerun=rerun(threads=1, caveats=["with one thread races between threads cannot show"])
)
CONTROL_ONLY = run(rerun=rerun(), twin=noisy_twin())
DISTURBED = run(rerun=rerun(neutral=False))
NOTHING = run()
NO_GROWTH = run(twin=twin(growth=None, no_growth="fewer than four steps to fit"))
STRANGE = run(
    rerun=rerun(sites=[site(max_ulp=None, file=None, line=None, code=None, fixes=[], module="")]),
    twin=strange_twin(),
    cost=cost(arms=[CostArm("default", [0.1, 0.0, 0.1]), CostArm("deterministic", [], error="no")]),
)
BUILT_DIFFERENTLY = run(
    command="twin",
    twin=dataclasses.replace(
        empty_twin(),
        control_identical=False,
        control_differs_step=-1,
        control_differs_name="model.table.weight",
        no_growth="building the workload is itself nondeterministic: model.table.weight differs",
    ),
)
EMPTY = run(status="failed", failure="twin: no step was done", twin=empty_twin())
ONE_PARAMETER = run(twin=twin(steps=1, size=1, half_step=None, growth=None, no_growth="one step"))
MANY_PARAMETERS = run(twin=twin(size=200))

HOSTILE_RUN = run(
    target=HOSTILE,
    status="failed",
    failure=f"step 3 failed: ValueError: {HOSTILE}\n\x1b[31m\u202e\ud800",
    rerun=rerun(
        sites=[
            site(
                op=HOSTILE,
                phase=HOSTILE,
                module=HOSTILE,
                file=HOSTILE,
                code=HOSTILE,
                fixes=[Fix(HOSTILE, HOSTILE, False, 5, error=HOSTILE)],
            )
        ],
        coverage=Coverage(3, 1, 0, 0, {HOSTILE: 2}),
        caveats=[HOSTILE],
    ),
    twin=twin(
        change=BitChange(HOSTILE, 0, None, HOSTILE, HOSTILE, HOSTILE),
        parameters=[HOSTILE, "$\\frac{1}$", "漢字", "\u202eabc", *PARAMETERS[:4]],
        no_growth=HOSTILE,
        growth=None,
        under=HOSTILE,
        evaluation={HOSTILE: 1.0},
    ),
    cost=cost(
        arms=[CostArm("default", [1.0, 1.0]), CostArm(HOSTILE, [1.0, 2.0], 1.5, error=HOSTILE)]
    ),
    environment={HOSTILE: {HOSTILE: HOSTILE, "list": [HOSTILE], "empty": {}}},
    seconds={HOSTILE: 1.0},
)

AUDITED = run(command="audit", audit=audit())
AUDITED_UNMET = run(command="audit", audit=audit(settings=[LATE]))
AUDITED_NOTHING = run(command="audit", audit=audit(ops=[], coverage=Coverage(seen=3)))
AUDITED_NONDETERMINISTIC = run(
    command="audit",
    audit=audit(
        settings=[LATE],
        ops=[
            status(
                op="aten.index_put.default", executions=20, differing=7, unwritten=None,
                declared="deterministic on request", switch="deterministic mode",
            ),
            status(op="aten.put_.default", executions=20, differing=1),
            status(error="RuntimeError: planted"),
        ],
    ),
)  # fmt: skip
SWEPT = run(command="rerun", rerun=rerun(classes=audit().ops, suspect_k=20, k=2))
OF_SCRIPT = run(command="rerun", target="train.py --lr 3", rerun=rerun(of_script=True))
PRICED = run(
    command="cost",
    cost=cost(
        ops=[
            OpCost(f"aten.op{n}.default", n + 1, {"default": 0.001 * n, "deterministic": 0.002})
            for n in range(7)
        ],
        fill_needed=False,
        fill_reason="with three contents of new memory the bits were the same",
    ),
)
HOSTILE_RUN.audit = audit(
    settings=[Setting(HOSTILE, HOSTILE, HOSTILE, HOSTILE)],
    ops=[status(op=HOSTILE, shapes=HOSTILE, declared=HOSTILE, switch=HOSTILE, error=HOSTILE)],
    caveats=[HOSTILE],
)

CASES = {
    name.lower(): record
    for name, record in list(globals().items())
    if isinstance(record, RunRecord)
}
