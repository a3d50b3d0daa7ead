"""The shape of stored truth: plain dataclasses, one for each thing a probe finds out.

Everything here is JSON but for `TwinRecord.series`, which is arrays. Times are in seconds, counts
are counts, steps count from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nondet_probe.bits.flip import BitChange
from nondet_probe.records.audit import OpStatus, Setting
from nondet_probe.records.fault import Fault
from nondet_probe.records.measured import Fate, Growth, MeasuredTensor, Predictions
from nondet_probe.records.twins import Condition, Followed, Onset

__all__ = [
    "AuditRecord",
    "CostArm",
    "CostRecord",
    "Coverage",
    "Fix",
    "Growth",
    "OpCost",
    "OpSite",
    "RerunRecord",
    "RunRecord",
    "TwinRecord",
]


@dataclass
class Coverage:
    """What a dispatch-level probe saw, and what it could not.

    seen: op calls that reached the probe; rerun: those executed again and compared;
    views, allocations: calls left out because they compute nothing (a view of their input; memory
    without content); not_covered: reason -> calls that the probe could not check.
    """

    seen: int = 0
    rerun: int = 0
    views: int = 0
    allocations: int = 0
    not_covered: dict[str, int] = field(default_factory=dict)


@dataclass
class Fix:
    """A change that was tried on a nondeterministic op call, with what came of it.

    name: "deterministic mode", "index_add_", "one thread"; how: the line of Python that applies it.
    verified: all executions under the fix gave one set of bits. ratio: median time with the fix
    over median time without, measured interleaved on the recorded inputs; spread: (min, max) of the
    pairwise ratios. error: why it could not be tried.
    """

    name: str
    how: str
    verified: bool
    executions: int = 0
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    error: str | None = None


@dataclass
class OpSite:
    """One nondeterministic op at one place of the user's program.

    op: overload, such as "aten.index_put_.default"; phase: "forward", "backward" or "optimizer";
    module: path of the module in the model ("" is the model itself, None is outside any);
    file, line, code: the user's source line (in backward that of the forward call which made the
    node, unless user code itself runs there: a Function's backward, a hook, a recomputed forward;
    without a line, code says whose gradient it is); calls: calls of this op at this place;
    differing_calls: those with any differing output; executions: of all kinds over those calls;
    differing: executions whose bits were not those of the first; elements: of the output that
    differed most; different_elements: most elements that differed in one execution; max_ulp:
    largest ulp distance (None where it is not defined); shapes: of the inputs of the call that
    differed most; fixes: what was tried on that call.
    """

    op: str
    phase: str
    module: str | None
    file: str | None
    line: int | None
    code: str | None
    calls: int
    differing_calls: int
    executions: int
    differing: int
    elements: int
    different_elements: int
    max_ulp: int | None
    shapes: list[str] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)


@dataclass
class RerunRecord:
    """What re-executing every op of `steps` training steps `k` times (in all) showed.

    suspect_k: executions of a call whose class (op and shapes) is suspect, since it differed before
    or PyTorch's documentation names the op; None where every call had `k`.
    of_script: a script was watched, once: its losses are not known, nothing was run again under a
    fix, and it was not compared with a run without the probe. classes: what else the bits of each
    class of calls depend on, where that was asked.
    sites: the nondeterministic ones, worst first; empty means that none was seen.
    verified_fix: name of the fix under which whole steps showed no nondeterministic op, or None.
    caveats: sentences the reader must know ("with one thread races between threads cannot show").
    neutral: training with the probe ended with the same bits as training without it; None where
    that cannot be told because the workload is nondeterministic.
    plain_runs_differ: first thing with which two runs without the probe ended differently, or None.
    probe_seconds, plain_seconds: the steps with the probe and the same steps without.
    """

    k: int
    steps: int
    threads: int
    losses: list[float]
    sites: list[OpSite]
    coverage: Coverage
    verified_fix: str | None = None
    neutral: bool | None = None
    plain_runs_differ: str | None = None
    caveats: list[str] = field(default_factory=list)
    probe_seconds: float = 0.0
    plain_seconds: float = 0.0
    suspect_k: int | None = None
    of_script: bool = False
    classes: list[OpStatus] = field(default_factory=list)


@dataclass
class TwinRecord:
    """A run, its twin with one changed bit, and its unperturbed control, stepped in lockstep.

    control_identical: the control's bits never left the run's. If they did: control_differs_step
    and control_differs_name give the first step (counted from 0; the state after that step) and
    tensor ("loss" when only the loss differed), and growth is None. Step -1 says that two copies
    differed as they were built, so building the workload is itself nondeterministic: then no step
    was run (steps is 0 and every series is empty).
    absorbed_step: first step after which no bit of the state of training (parameters, buffers,
    optimizer, gradients) differed any more, to the end of the run.
    half_step: first step after which half of all parameters' elements differ.
    no_growth: why there is no growth figure, or None.
    under: the switch the run was under ("" for none, else a Fix name).
    probe_seconds: all of the steps; plain_seconds: the run's own share of them.
    series: arrays over the steps done; axis 0 is the step:
        "distance"   float64 [steps]          L2 distance of the twin's parameters from the run's,
                                              over the run's L2 norm (inf where that is 0)
        "fraction"   float64 [steps]          share of parameter elements whose bits differ
        "max_ulp"    int64   [steps]          largest ulp distance over all parameters: 2**63 - 1
                                              beside a NaN, -1 where no dtype has an ulp
        "loss"       float64 [steps]          loss of the run
        "loss_twin"  float64 [steps]          may be NaN or inf, which is a finding
        "control"    float64 [steps]          share of elements where the control differs
        "param_distance", "param_fraction" float64 [steps, parameters]; "param_max_ulp" int64
        "kind_distance"     float64 [steps, 4]        as "distance", over all parameters, buffers,
                                                      the optimizer's state, the gradients; NaN
                                                      where a kind has no tensor
        "tensor_distance"   float64 [steps, tensors]  as "distance", of each of `tensors`
        "tensor_share"      float64 [steps, tensors]  share of its elements whose bits differ
        "tensor_cosine"     float64 [steps, tensors]  of the angle between the run's and the twin's;
                                                      NaN where a norm is 0 or not finite
        "tensor_max_ulp"    int64   [steps, tensors]  as "max_ulp"
        "tensor_median_ulp" int64   [steps, tensors]  the median over all elements is at most this,
                                                      and more than half of it
        "tensor_ulps"       unsigned [steps, tensors, buckets] how many elements (halves of complex
                                                      ones) lie how far apart: bucket 0 counts equal
                                                      bits, bucket k distances of 2**(k - 1) or more
                                                      and less than 2**k, the last 2**63 - 1
        A tensor that was not there after a step (a gradient set to None, in either copy) has NaN,
        -1 and an empty histogram there.
        Of several twins, number 0 the one that all else is of:
        "twins_distance", "twins_fraction", "twins_loss" float64 [steps, twins]  as "distance", ...
        "twins_fan"         float64 [steps, 3]        quartile, median, quartile of "twins_distance"
    fate: what became of the change over the run. predictions: how the outputs differ at the end, or
    None, and no_predictions says why.
    fault: as it was asked for, with the number of the first draw; None for a bit of a parameter
    that no fault described. change: what it changed; None where the run did not come to it.
    twins: what became of each, if there are several. conditions: lower bounds of the condition
    number of training, of what could be told; no_conditions: why there are none, or None.
    onset: the same change at each of several steps.
    """

    steps: int
    change: BitChange | None
    parameters: list[str]
    elements: list[int]
    control_identical: bool
    control_differs_step: int | None = None
    control_differs_name: str | None = None
    absorbed_step: int | None = None
    half_step: int | None = None
    growth: Growth | None = None
    no_growth: str | None = None
    under: str = ""
    evaluation: dict[str, float] = field(default_factory=dict)
    evaluation_twin: dict[str, float] = field(default_factory=dict)
    probe_seconds: float = 0.0
    plain_seconds: float = 0.0
    tensors: list[MeasuredTensor] = field(default_factory=list)
    fate: Fate | None = None
    predictions: Predictions | None = None
    no_predictions: str | None = None
    fault: Fault | None = None
    twins: list[Followed] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    no_conditions: str | None = None
    onset: list[Onset] = field(default_factory=list)
    series: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.series = {name: np.asarray(values) for name, values in self.series.items()}


@dataclass
class CostArm:
    """One way to run the same steps: seconds of each step, or why it cannot run.

    name: "default", "deterministic", "deterministic, no fill", or a further one; ratio: median of
    the pairwise ratios of its steps to the default arm's, spread: their quartiles.
    """

    name: str
    seconds: list[float]
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    error: str | None = None


@dataclass
class OpCost:
    """What one op takes. calls: in one step, the most in any arm; seconds: by arm, the median over
    the steps in which ops were timed of all its calls in one step (0 where it has none)."""

    op: str
    calls: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class CostRecord:
    """What determinism costs a training, arms interleaved by step.

    ops: where the time goes, that op first which the deterministic arm pays most for beyond the
    default. fill_needed: whether the bits depend on what new memory holds; None where that is not
    known; fill_reason: why, a sentence without a full stop ("" where it was not asked).
    """

    steps: int
    threads: int
    arms: list[CostArm]
    ops: list[OpCost] = field(default_factory=list)
    fill_needed: bool | None = None
    fill_reason: str = ""


@dataclass
class AuditRecord:
    """An audit of `steps` training steps. thread_counts: those that were tried; settings: what was
    requested and what is in force; ops: one row a class, those that differ first. k, suspect_k:
    executions of a call, and of a suspect one."""

    steps: int
    k: int
    suspect_k: int | None
    threads: int
    thread_counts: list[int]
    settings: list[Setting]
    ops: list[OpStatus]
    coverage: Coverage
    caveats: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[str]:
        """What is wrong with the settings."""
        return [setting.finding for setting in self.settings if setting.finding is not None]


@dataclass
class RunRecord:
    """Everything one command found out about one workload.

    status: "complete" or "failed"; failure: the sentence that says where and why; failed_step.
    environment: of `nondet_probe.env.snapshot()`. seconds: wall time of each part.
    """

    command: str
    target: str
    seed: int
    created: str
    environment: dict[str, Any]
    status: str = "complete"
    failure: str | None = None
    failed_step: int | None = None
    rerun: RerunRecord | None = None
    twin: TwinRecord | None = None
    twin_fixed: TwinRecord | None = None
    cost: CostRecord | None = None
    audit: AuditRecord | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def nondeterministic(self) -> bool:
        """Whether an op, a plain run or an unperturbed copy did not repeat itself."""
        twins = [twin for twin in (self.twin, self.twin_fixed) if twin is not None]
        differing = self.rerun is not None and (
            bool(self.rerun.sites) or self.rerun.plain_runs_differ is not None
        )
        audited = self.audit is not None and not all(op.repeatable for op in self.audit.ops)
        return differing or audited or not all(twin.control_identical for twin in twins)
