"""Several twins in tables: their fates, the condition number that they bound, and the onset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from nondet_probe.records import Condition, Followed, Onset, RunRecord, TwinRecord
from nondet_probe.report.fates import fate_told, tally
from nondet_probe.report.spell import clip, number, one_line, percent, plural
from nondet_probe.report.tables import Table
from nondet_probe.report.words import growth_phrase

__all__ = ["conditions", "every", "fates", "onset"]

_RESULTS = {
    "weights": "weights after the last step",
    "outputs": "outputs where it is evaluated",
    "loss": "loss of the last step",
}
_NORMS = {"L2": "over the L2 of all parameters", "element": "over the changed element"}


def every(record: RunRecord) -> list[Table]:
    """What a terminal shows below the key figures: of one twin those say enough."""
    twin = record.twin
    if twin is None:
        return []
    several = [fates(twin), conditions(twin)] if twin.twins else []
    return [*several, onset(twin)]


def fates(twin: TwinRecord) -> Table:
    """One row a twin; none where there is one twin."""
    columns = ["Twin", "What was changed", "Fate", "Growth", "Distance at the end", "Predictions"]
    ends = np.asarray(twin.series.get("twins_distance", ()), dtype=np.float64)
    rows = []
    for place, one in enumerate(twin.twins):
        known = ends.ndim == 2 and len(ends) and place < ends.shape[1]
        last = float(ends[-1, place]) if known else None
        rows.append(
            [
                str(place),
                _place(one),
                fate_told(one.fate).partition("\n")[0] if one.fate else "unknown",
                _growth(one),
                number(last),
                _predicted(one),
            ]
        )
    return Table("What became of each twin", columns, rows)


def conditions(twin: TwinRecord) -> Table:
    """One row a result and norm."""
    columns = ["Result", "Change of the parameters", "At least", "Bits lost", "Median of the twins"]
    rows = [
        [
            _RESULTS.get(one.of, one_line(one.of)),
            _NORMS.get(one.norm, one_line(one.norm)),
            number(one.bound),
            number(one.bits) if math.isfinite(one.bits) else "none",
            _interval(one),
        ]
        for one in twin.conditions
    ]
    return Table("Condition number of training, a lower bound", columns, rows)


def onset(twin: TwinRecord) -> Table:
    """One row a step of the change."""
    columns = ["Step of the change", "Distance at the end", "Predicted differently", "Fates"]
    rows = [[str(one.step), *_ends(one)] for one in twin.onset]
    return Table("The same change at each of these steps", columns, rows)


def _ends(one: Onset) -> Iterator[str]:
    if one.no_figures is not None or not one.distance:
        yield from ("none", "none", one_line(one.no_figures or "not recorded", 300))
        return
    yield _spread(one.distance, number)
    known = [share for share in one.disagreement if share is not None]
    yield _spread(known, percent) if known else "not known"
    yield tally(one.fates)


def _spread(values: list[float], spell: Callable[[float | None], str]) -> str:
    """The median, and from where to where the twins reach; what is no number counts as infinite."""
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    told = spell(float(np.median(ordered)))
    if len(ordered) > 1:
        told += f"\n{spell(ordered[0])} to {spell(ordered[-1])} over {plural(len(ordered), 'twin')}"
    return told


def _place(one: Followed) -> str:
    if one.change is None:
        return "nothing yet"
    return f"{clip(one.change.name, 40)}[{one.change.index}]"


def _growth(one: Followed) -> str:
    if one.growth is not None:
        interval = f"{number(one.growth.low)} to {number(one.growth.high)}"
        return f"{growth_phrase(one.growth)}\n95% interval {interval} a step"
    return one_line((one.no_growth or "not recorded").partition(": ")[0], 100)


def _predicted(one: Followed) -> str:
    if one.predictions is None:
        return "not known"
    if one.predictions.disagreement is None:
        return f"distance {number(one.predictions.distance)}"
    return f"{percent(one.predictions.disagreement)} differ"


def _interval(one: Condition) -> str:
    if one.low is None or one.high is None:
        return "one twin: no interval"
    return f"{number(one.median)}\n95% interval {number(one.low)} to {number(one.high)}"
