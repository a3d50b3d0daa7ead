"""What the copies in lockstep have shown, as one record: of each twin, and of all together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nondet_probe.probe.condition import conditions, relative_change
from nondet_probe.probe.fate import fate
from nondet_probe.probe.follower import Follower
from nondet_probe.probe.growth import growth
from nondet_probe.probe.lockstep import BUILT, Lockstep
from nondet_probe.records.fault import Fault
from nondet_probe.records.measured import Fate, Growth
from nondet_probe.records.schema import TwinRecord
from nondet_probe.records.twins import Followed, Onset

__all__ = ["AtStep", "onset", "record_of"]

Floats = npt.NDArray[np.float64]

_NOT_ENDED = "the run was not followed to its end"


def record_of(
    copies: Lockstep, twins: Sequence[Follower], *, under: str, fault: Fault | None, ended: bool
) -> TwinRecord:
    """twins: those of `copies.followers` that followed from the first step on, the first of which
    is measured in full. ended: whether all steps were done and all were evaluated."""
    first = twins[0]
    series = first.distances.arrays()
    series["loss"] = np.array(copies.losses, dtype=np.float64)
    series["loss_twin"] = np.array(first.losses, dtype=np.float64)
    series["control"] = np.array(copies.control_shares, dtype=np.float64)
    overall = [series, *(one.distances.overall() for one in twins[1:])]
    found = [_followed(copies, one, its) for one, its in zip(twins, overall, strict=True)]
    if len(twins) > 1:
        series |= _together(twins, overall)
    # From here on as they are of the first alone.
    own = found[0]
    distances = [its["distance"] for its in overall]
    no_conditions = _no_conditions(copies, first, ended)
    bounds = [] if no_conditions else conditions(*_ratios(copies, twins, distances))
    if not bounds and no_conditions is None:
        no_conditions = "no twin gave a ratio that is finite"
    return TwinRecord(
        steps=len(copies.losses),
        change=own.change,
        parameters=[name for name, _ in copies.run.model.named_parameters()],
        elements=first.distances.elements,
        control_identical=copies.differs_step is None,
        control_differs_step=copies.differs_step,
        control_differs_name=copies.differs,
        absorbed_step=own.absorbed_step,
        half_step=own.half_step,
        growth=own.growth,
        no_growth=own.no_growth,
        under=under,
        evaluation=copies.evaluation,
        evaluation_twin=own.evaluation,
        tensors=first.distances.tensors,
        fate=own.fate,
        predictions=own.predictions,
        no_predictions=own.no_predictions,
        fault=fault,
        twins=found if len(found) > 1 else [],
        conditions=bounds,
        no_conditions=no_conditions,
        probe_seconds=copies.probe_seconds,
        plain_seconds=copies.plain_seconds,
        series=series,
    )


class AtStep:
    """The twins whose change is at `step`, and the copy that went on from there unchanged; that is
    None where they followed from the first step on."""

    def __init__(self, step: int, twins: Sequence[Follower], control: Follower | None) -> None:
        self.step, self.twins, self.control = step, list(twins), control
        self.followers = [*self.twins, *([control] if control is not None else [])]


def onset(copies: Lockstep, planned: Sequence[AtStep], ended: bool) -> list[Onset]:
    """How the twins of each step ended."""
    return [_onset(copies, one, ended) for one in planned]


def _onset(copies: Lockstep, its: AtStep, ended: bool) -> Onset:
    why = _NOT_ENDED
    if copies.differs_step is not None:
        why = "the control differs"
    elif ended:
        left = its.control.left if its.control is not None else None
        if left is None:
            found = [(one, _distance(one)) for one in its.twins]
            return Onset(
                its.step,
                [float(distance[-1]) for _, distance in found],
                [one.predictions.disagreement if one.predictions else None for one, _ in found],
                [_fate(copies, one, distance).verdict for one, distance in found],
            )
        why = (
            f"an unchanged copy that took the run's state over before step {its.step} left the "
            f"run at step {left[0]} (first in {left[1]}): the workload keeps state that cannot be "
            "copied"
        )
    return Onset(its.step, no_figures=why)


def _distance(one: Follower) -> Floats:
    """By the run's steps, 0 before it was born."""
    found: Floats = np.concatenate([np.zeros(one.born), one.distances.overall()["distance"]])
    return found


def _followed(copies: Lockstep, one: Follower, overall: dict[str, Floats]) -> Followed:
    reached_half = np.flatnonzero(overall["fraction"] >= 0.5)
    rate, why_none = _growth(copies, one, overall["distance"])
    return Followed(
        change=one.change,
        absorbed_step=one.absorbed_step,
        half_step=int(reached_half[0]) if reached_half.size else None,
        growth=rate,
        no_growth=why_none,
        fate=_fate(copies, one, overall["distance"]),
        evaluation=one.evaluation,
        predictions=one.predictions,
        no_predictions=one.no_predictions,
    )


def _together(twins: Sequence[Follower], overall: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    """The series of all twins, and the quartiles of their distance."""
    found = {
        f"twins_{name}": np.stack([its[name] for its in overall], axis=1)
        for name in ("distance", "fraction")
    }
    found["twins_loss"] = np.array([one.losses for one in twins], dtype=np.float64).T
    found["twins_fan"] = _quartiles(found["twins_distance"])
    return found


def _quartiles(values: Floats) -> Floats:
    """[steps, 3] of [steps, twins], as numpy's own but for what is no number, which counts as
    infinite: no twin is further away."""
    ordered = np.sort(np.where(np.isnan(values), np.inf, values), axis=1)
    places = np.array([0.25, 0.5, 0.75]) * (values.shape[1] - 1)
    low, high = (ordered[:, way(places).astype(int)] for way in (np.floor, np.ceil))
    with np.errstate(invalid="ignore"):
        between = low + (high - low) * (places % 1.0)
    return np.where(low == high, low, np.where(np.isinf(high), np.inf, between))


def _fate(copies: Lockstep, one: Follower, distance: Floats) -> Fate:
    if copies.differs_step is not None:
        return Fate(
            "unknown", "the control differs, so what is seen is not the change's doing alone"
        )
    if one.change is None:
        return Fate("unknown", _not_yet(one))
    return fate(distance, one.absorbed_step, one.spread_step)


def _growth(copies: Lockstep, one: Follower, distance: Floats) -> tuple[Growth | None, str | None]:
    if copies.differs_step == BUILT:
        return None, (
            f"building the workload is itself nondeterministic: {copies.differs} differs between "
            "two calls of the workload function with the same seed"
        )
    if copies.differs_step is not None:
        return None, (
            "the run is nondeterministic, so the distance is not the changed bit's doing alone"
        )
    if one.absorbed_step is not None:
        return None, f"the change was absorbed at step {one.absorbed_step}"
    if not copies.losses:
        return None, "no step was completed"
    if one.change is None:
        return None, _not_yet(one)
    if one.spread_step is None:
        return None, "no bit but the changed weight's came to differ"
    return growth(distance, one.spread_step, one.since)


def _not_yet(one: Follower) -> str:
    return f"the run did not come to step {one.since}, where the change was to be made"


def _no_conditions(copies: Lockstep, one: Follower, ended: bool) -> str | None:
    if copies.differs_step is not None:
        return "the control differs, so what is seen is not the change's doing alone"
    if not ended:
        return _NOT_ENDED
    if isinstance(one.fault, Fault) and one.fault.site not in ("weight", "bias"):
        return (
            "the condition number is that of training as a function of the parameters, and the "
            f"fault is of site {one.fault.site}"
        )
    return None


def _ratios(
    copies: Lockstep, twins: Sequence[Follower], distances: Sequence[Floats]
) -> tuple[list[dict[str, float]], dict[str, list[float | None]]]:
    """The arguments of `conditions`."""
    changes = []
    for one in twins:
        assert one.change is not None, "the run came to its end"
        assert one.norm is not None, "it was taken with the change"
        changes.append(relative_change(one.change, one.norm))
    return changes, {
        "weights": [float(distance[-1]) for distance in distances],
        "outputs": [one.predictions.distance if one.predictions else None for one in twins],
        "loss": [_relative(copies.losses[-1], one.losses[-1]) for one in twins],
    }


def _relative(run: float, other: float) -> float:
    if run == other:
        return 0.0
    return abs(other - run) / abs(run) if run else float("inf")
