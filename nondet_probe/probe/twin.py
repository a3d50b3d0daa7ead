"""Two copies of one training run in lockstep, one bit of one weight apart, and a control.

The run is driven as it would be without the probe; the twin and the control repeat each of its
steps on the same batch and from the same state of the random streams. The twin shows what becomes
of the smallest possible change; the control, in which nothing is changed, shows that nothing else
made the difference.

Limits. Batches are drawn from the run's own workload only; the iterators of the copies are never
started. So a generator of the workload's own from which both its batches and its steps draw gets
out of step in the copies, and the control says so. The same holds for whatever the three copies
share in the process: a global counter, a cache, the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch.nn.parameter import UninitializedParameter

from nondet_probe.bits import BitChange, flip_bit
from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.errors import RunFailedError, UsageError, unknown_name
from nondet_probe.probe.drive import Batches, build, evaluated
from nondet_probe.probe.fate import fate
from nondet_probe.probe.fixes import under_fix
from nondet_probe.probe.growth import growth
from nondet_probe.probe.lockstep import BUILT, Lockstep
from nondet_probe.probe.predictions import predictions, watched
from nondet_probe.records.measured import Fate
from nondet_probe.records.schema import Growth, TwinRecord
from nondet_probe.workload import WorkloadFactory

__all__ = ["twin"]


def twin(
    factory: WorkloadFactory,
    *,
    seed: int = 0,
    steps: int = 100,
    name: str | None = None,
    index: int | None = None,
    bit: int = 0,
    under: str | AbstractContextManager[object] = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> TwinRecord:
    """Flip `bit` (0 the least significant) of one weight and follow what becomes of it.

    name: the parameter; None takes the first floating-point one with two dimensions or more in the
    order of `model.named_parameters()`, or else the first floating-point one. index: flat,
    row-major; None draws one uniformly with a generator of its own, seeded with `seed`. under: the
    name of a fix (`nondet_probe.probe.fixes`) that holds for all of it, or a context, such as
    `nondet_probe.reproducible()`, which the record calls by its `str`; "" for none. progress:
    called with (what, steps done, steps).

    The process's random streams are put back as they were. A control that leaves the run does not
    end it; two builds that differ do, since nothing could be compared (`TwinRecord` says how that
    is recorded).

    Raises UnknownNameError and UsageError for what cannot be done, before any step is run, and
    RunFailedError when the workload fails; its `partial` is the TwinRecord of the steps done.
    """
    if steps < 1:
        raise UsageError(f"steps={steps}: a twin needs at least 1")
    held = str(under)
    with preserved_rng(), under_fix(under):
        run = build(factory, seed)
        built = RngState.capture()
        chosen, place = _choose(run.model, seed, name, index)
        copies = Lockstep(run, build(factory, seed), build(factory, seed))
        change = _flip(copies.twin.model, chosen, place, bit)
        record = _record(copies, change, held)
        if copies.differs_step == BUILT:
            return record
        try:
            built.restore()
            batches = Batches(run, steps)
            for step in range(steps):
                copies.step(step, batches)
                if progress is not None:
                    progress(f"twin under {held}" if held else "twin", step + 1, steps)
            record = _record(copies, change, held)
            _evaluate(record, copies, steps)
        except RunFailedError as error:
            error.partial = record if record.steps else _record(copies, change, held)
            raise
    return record


def _evaluate(record: TwinRecord, copies: Lockstep, steps: int) -> None:
    """The figures of both, from the same state of the random streams, and their outputs."""
    if copies.run.evaluate is None:
        record.no_predictions = "the workload has no evaluate"
        return
    stepped = RngState.capture()
    with watched(copies.run.model) as outputs:
        record.evaluation = evaluated(copies.run, steps)
    stepped.restore()
    with watched(copies.twin.model) as outputs_twin:
        record.evaluation_twin = evaluated(copies.twin, steps)
    record.predictions, record.no_predictions = predictions(outputs, outputs_twin)


def _choose(
    model: torch.nn.Module, seed: int, name: str | None, index: int | None
) -> tuple[str, int]:
    parameters = dict(model.named_parameters())
    for key, value in parameters.items():
        if isinstance(value, UninitializedParameter):
            raise UsageError(
                f"parameter {key!r} has no values yet (a lazy module): call the model once on a "
                "batch in the workload function"
            )
    if name is None:
        floating = [key for key, value in parameters.items() if value.is_floating_point()]
        if not floating:
            raise UsageError("the model has no floating-point parameter whose bit can be flipped")
        name = next((key for key in floating if parameters[key].dim() >= 2), floating[0])
    if name not in parameters:
        raise unknown_name("parameter", name, parameters)
    if index is None:
        own = torch.Generator().manual_seed(seed)
        index = int(torch.randint(max(parameters[name].numel(), 1), (), generator=own))
    return name, index


def _flip(model: torch.nn.Module, name: str, index: int, bit: int) -> BitChange:
    try:
        return flip_bit(model.get_parameter(name), index, bit, name)
    except (TypeError, UsageError) as error:
        raise UsageError(f"parameter {name!r}: {error}") from error


def _record(copies: Lockstep, change: BitChange, under: str) -> TwinRecord:
    series = copies.distances.arrays()
    series["loss"] = np.array(copies.losses, dtype=np.float64)
    series["loss_twin"] = np.array(copies.twin_losses, dtype=np.float64)
    series["control"] = np.array(copies.control_shares, dtype=np.float64)
    reached_half = np.flatnonzero(series["fraction"] >= 0.5)
    rate, why_none = _growth(copies, series["distance"])
    return TwinRecord(
        steps=len(copies.losses),
        change=change,
        parameters=[name for name, _ in copies.run.model.named_parameters()],
        elements=copies.distances.elements,
        control_identical=copies.differs_step is None,
        control_differs_step=copies.differs_step,
        control_differs_name=copies.differs,
        absorbed_step=copies.absorbed_step,
        half_step=int(reached_half[0]) if reached_half.size else None,
        growth=rate,
        no_growth=why_none,
        under=under,
        tensors=copies.distances.tensors,
        fate=_fate(copies, series["distance"]),
        no_predictions="the run was not followed to its end",
        probe_seconds=copies.probe_seconds,
        plain_seconds=copies.plain_seconds,
        series=series,
    )


def _fate(copies: Lockstep, distance: np.ndarray) -> Fate:
    if copies.differs_step is not None:
        return Fate(
            "unknown", "the control differs, so what is seen is not the change's doing alone"
        )
    return fate(distance, copies.absorbed_step, copies.spread_step)


def _growth(copies: Lockstep, distance: np.ndarray) -> tuple[Growth | None, str | None]:
    if copies.differs_step == BUILT:
        return None, (
            f"building the workload is itself nondeterministic: {copies.differs} differs between "
            "two calls of the workload function with the same seed"
        )
    if copies.differs_step is not None:
        return None, (
            "the run is nondeterministic, so the distance is not the changed bit's doing alone"
        )
    if copies.absorbed_step is not None:
        return None, f"the change was absorbed at step {copies.absorbed_step}"
    if not copies.losses:
        return None, "no step was completed"
    if copies.spread_step is None:
        return None, "no bit but the changed weight's came to differ"
    return growth(distance, copies.spread_step)
