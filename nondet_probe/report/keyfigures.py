"""The few figures that come right below the verdict."""

from __future__ import annotations

import math
from typing import NamedTuple

from nondet_probe.records import AuditRecord, RerunRecord, RunRecord, TwinRecord
from nondet_probe.report.fates import tally
from nondet_probe.report.spell import clip, number, one_line, percent, plural, ratio
from nondet_probe.report.words import best_fix, deterministic_arm, growth_reason, within_noise

__all__ = ["KeyFigure", "key_figures"]


class KeyFigure(NamedTuple):
    """label: what it is; value: the figure; more: what it means, in a few words."""

    label: str
    value: str
    more: str


def key_figures(record: RunRecord) -> list[KeyFigure]:
    """The figures that `record` has; each stands alone."""
    figures = []
    if record.rerun is not None:
        figures += _of_rerun(record.rerun)
    if record.audit is not None:
        figures += _of_audit(record.audit)
    if record.twin is not None:
        figures.append(_control(record.twin, ""))
        # What the bit does says nothing where the run moves by itself and was repeated under a fix.
        if record.twin.control_identical or record.twin_fixed is None:
            figures.append(_fate(record.twin, ""))
        figures += _of_twins(record.twin)
    if record.twin_fixed is not None:
        under = f", under {one_line(record.twin_fixed.under, 40)}"
        figures += [_control(record.twin_fixed, under), _fate(record.twin_fixed, under)]
    arm = deterministic_arm(record)
    if arm is not None:
        value = ratio(arm.ratio) if arm.error is None else "cannot run"
        more = "the time of a whole training step"
        if arm.error is not None:
            more = one_line(arm.error, 90)
        elif within_noise(arm):
            more += ", within the noise of this machine"
        figures.append(KeyFigure("Deterministic mode", value, more))
    return figures


def _of_rerun(rerun: RerunRecord) -> list[KeyFigure]:
    missed = sum(rerun.coverage.not_covered.values())
    figures = [
        KeyFigure(
            "Nondeterministic places",
            str(len(rerun.sites)),
            f"among {plural(rerun.coverage.rerun, 'op call')}, each executed "
            f"{plural(rerun.k, 'time')}"
            + (f", suspects {rerun.suspect_k} times" if rerun.suspect_k is not None else "")
            + (f"; {missed} not covered" if missed else ""),
        )
    ]
    if rerun.sites:
        site = rerun.sites[0]
        fix = best_fix(rerun, site)
        figures.append(
            KeyFigure(
                "Fix of the worst place",
                one_line(fix.name, 40) if fix is not None else "none found",
                f"verified, at {ratio(fix.ratio)} the op's time"
                if fix is not None
                else f"{plural(len(site.fixes), 'fix', 'fixes')} tried",
            )
        )
    return figures


def _of_audit(audit: AuditRecord) -> list[KeyFigure]:
    classes = len(audit.ops)
    among = f"of {plural(classes, 'class', 'classes')} of op calls"
    missed = sum(audit.coverage.not_covered.values())
    told = f"{among}; {plural(missed, 'call')} not covered" if missed else among
    counts = ", ".join(map(str, audit.thread_counts))
    return [
        KeyFigure("Not repeatable", str(sum(not row.repeatable for row in audit.ops)), told),
        KeyFigure(
            "Change with the threads",
            str(sum(bool(row.other_threads) for row in audit.ops)),
            f"{among}, tried with {counts} threads",
        ),
        KeyFigure(
            "Change with the batch",
            str(sum(bool(row.with_batch) for row in audit.ops)),
            "row 0 of the result is another when there are more rows",
        ),
        KeyFigure(
            "Requests not in force",
            str(len(audit.findings)),
            f"of {plural(len(audit.settings), 'switch', 'switches')} looked at",
        ),
    ]


def _control(twin: TwinRecord, under: str) -> KeyFigure:
    label = f"Control{under}"
    if twin.control_identical:
        return KeyFigure(label, "bit-identical", f"for {plural(twin.steps, 'step')}")
    step, first = twin.control_differs_step, twin.control_differs_name
    if step is not None and step < 0:
        return KeyFigure(label, "differs as built", f"first in {clip(first or 'the model', 40)}")
    return KeyFigure(
        label,
        "differs" if step is None else f"differs at step {step}",
        f"first in {clip(first, 40)}" if first else "though nothing in it was changed",
    )


def _of_twins(twin: TwinRecord) -> list[KeyFigure]:
    """Of several twins together, whose control stayed with the run."""
    if not twin.twins or not twin.control_identical:
        return []
    verdicts = [one.fate.verdict if one.fate is not None else "unknown" for one in twin.twins]
    distance = twin.series.get("twins_fan")
    ends = ""
    if distance is not None and len(distance):
        low, middle, high = (number(float(value)) for value in distance[-1])
        ends = f"median distance at the end {middle}, quartiles {low} and {high}"
    found = [KeyFigure(plural(len(verdicts), "twin"), tally(verdicts), ends)]
    for one in twin.conditions:
        if one.of == "weights" and one.norm == "element" and math.isfinite(one.bits):
            more = f"lost at least: the condition number of training is {number(one.bound)} or more"
            found.append(KeyFigure("Bits of the weights", number(one.bits), more))
    return found


def _fate(twin: TwinRecord, under: str) -> KeyFigure:
    label = f"One changed bit{under}"
    if twin.absorbed_step is not None:
        return KeyFigure(label, "absorbed", f"no trace of it left at step {twin.absorbed_step}")
    growth, fate = twin.growth, twin.fate
    if fate is not None and fate.verdict == "not finite":
        return KeyFigure(label, "not finite", f"{one_line(fate.reason)} at step {fate.step}")
    if growth is None:
        dormant = fate is not None and fate.verdict == "dormant"
        return KeyFigure(label, "dormant" if dormant else "no growth rate", growth_reason(twin))
    share = twin.series.get("fraction")
    end = ""
    if share is not None and len(share):
        end = f"; {percent(float(share[-1]))} of elements differ at the end"
    if fate is not None and fate.verdict == "saturated":
        end = f"; saturated near {number(fate.level, 2)} at step {fate.step}{end}"
    if not growth.low > 0 and not growth.high < 0:
        return KeyFigure(label, "no clear growth", f"over {plural(twin.steps, 'step')}{end}")
    value = f"{number(math.exp(min(growth.rate, 700.0)))}x a step"
    if growth.doubling_steps is not None and growth.rate > 0:
        more = f"doubles every {number(growth.doubling_steps, 2)} steps"
    else:
        more = "the distance shrinks" if growth.rate < 0 else "the distance grows"
    return KeyFigure(label, value, more + end)
