"""One plain sentence about a run, and the phrases it is made of; it comes first everywhere."""

from __future__ import annotations

import math
from typing import Literal

from nondet_probe.records import (
    AuditRecord,
    CostArm,
    Fix,
    Growth,
    OpSite,
    RerunRecord,
    RunRecord,
    TwinRecord,
)
from nondet_probe.report.spell import (
    clip,
    listing,
    number,
    one_line,
    percent,
    place,
    plural,
    printable,
    ratio,
    short_op,
)

__all__ = [
    "Outcome",
    "best_fix",
    "change_phrase",
    "control_phrase",
    "deterministic_arm",
    "growth_phrase",
    "growth_reason",
    "outcome",
    "site_phrase",
    "verdict",
    "within_noise",
]

Outcome = Literal["clean", "nondeterministic", "unmet", "priced", "unknown", "failed"]


def outcome(record: RunRecord) -> Outcome:
    """The verdict in one word.

    "clean" needs something that was really checked, and a probe that did not disturb the run;
    without these it is "unknown". "unmet": something that was requested is not in force.
    "priced": only the cost of determinism was measured.
    """
    if record.status != "complete":
        return "failed"
    if record.nondeterministic:
        return "nondeterministic"
    rerun, twin, audit = record.rerun, record.twin, record.audit
    if audit is not None:
        if audit.findings:
            return "unmet"
        return "clean" if audit.coverage.rerun else "unknown"
    if rerun is not None and (rerun.neutral is False or not rerun.coverage.rerun):
        return "unknown"
    if rerun is None and (twin is None or not twin.steps):
        return "priced" if record.cost is not None and twin is None else "unknown"
    return "clean"


def verdict(record: RunRecord) -> str:
    """One sentence for somebody who reads nothing else: what was found, where, what to do."""
    name = clip(record.target, 70) or "the workload"
    if record.twin is not None and record.twin.under:
        name += f" under {one_line(record.twin.under, 60)}"
    kind = outcome(record)
    if kind == "failed":
        sentence = f"{name} failed{_failure(record)}; until then {_so_far(record)}"
    elif kind == "nondeterministic":
        sentence = f"{name} is nondeterministic{_nondeterminism(record)}"
    elif kind == "unmet" and record.audit is not None:
        sentence = f"{name} does not have what it asks for: {listing(record.audit.findings)}"
    elif kind == "priced" and record.cost is not None:
        sentence = f"{name}: {_price(record)}"
    elif kind == "clean":
        sentence = f"No nondeterminism seen in {name}: {_clean(record)}"
    else:
        sentence = f"No verdict on {name}: {_unknown(record)}"
    return sentence + "."


def _failure(record: RunRecord) -> str:
    text = one_line(record.failure) if record.failure else "no reason was recorded"
    step = record.failed_step
    # The failure's own sentence usually names the step; say it once.
    at = "" if step is None or f"step {step}" in text else f" at step {step}"
    return f"{at}: {text}"


def _so_far(record: RunRecord) -> str:
    found = []
    rerun, twin = record.rerun, record.twin
    if record.audit is not None and record.audit.coverage.rerun:
        bad = sum(not row.repeatable for row in record.audit.ops)
        found.append(f"{plural(bad, 'class', 'classes')} of op calls did not repeat their bits")
    if rerun is not None and rerun.sites:
        found.append(f"{site_phrase(rerun.sites[0])}{_others(rerun)} was nondeterministic")
    elif rerun is not None and rerun.coverage.rerun:
        found.append(f"no nondeterministic op was seen in {_calls(rerun)}")
    if twin is not None and twin.steps:
        found.append(control_phrase(twin))
    return " and ".join(found) or "nothing had been checked"


def _audited(audit: AuditRecord) -> str:
    """Which classes of calls did not repeat themselves, and what is wrong with the settings."""
    bad = [row for row in audit.ops if not row.repeatable]
    row = bad[0]
    more = f" (and {plural(len(bad) - 1, 'more class', 'more classes')})" if bad[1:] else ""
    switch = (
        f"{one_line(row.switch)} fixes it, verified" if row.switch else "no switch tried fixes it"
    )
    found = "".join(f"; {one_line(text)}" for text in audit.findings)
    return (
        f": {short_op(row.op)} gave different bits in {row.differing} of "
        f"{plural(row.executions, 'execution')} on the same inputs{more}; {switch}{found}"
    )


def _nondeterminism(record: RunRecord) -> str:
    rerun, twin = record.rerun, record.twin
    if record.audit is not None:
        return _audited(record.audit)
    if rerun is not None and rerun.sites:
        site = rerun.sites[0]
        seen = (
            f": {site_phrase(site)} gave different bits in {site.differing} of "
            f"{plural(site.executions, 'execution')} on the same inputs{_others(rerun)}"
        )
        return f"{seen}; {_fix_phrase(record, rerun, site)}"
    if twin is None or twin.control_identical:
        twin = record.twin_fixed
    if twin is None or twin.control_identical:
        assert rerun is not None, "an op, a plain run or a control makes a run nondeterministic"
        return (
            f", although none of {_calls(rerun)} was seen to be: two plain runs with the same seed "
            f"ended with different bits (first: {clip(rerun.plain_runs_differ or '', 80)})"
        )
    if rerun is None:
        return f": {control_phrase(twin)}{_what_next(twin)}"
    return f", although none of {_calls(rerun)} was seen to be: {control_phrase(twin)}"


def _what_next(twin: TwinRecord) -> str:
    """Advice where nothing but a twin was run, and its control differs."""
    if (twin.control_differs_step or 0) < 0:
        return ""
    told = "; `nondet-probe rerun` looks for the op"
    follows = ", and `nondet-probe twin --reproducible` follows the bit alone"
    return told if twin.under else told + follows


def _clean(record: RunRecord) -> str:
    parts, caveats = [], []
    rerun, twin = record.rerun, record.twin
    if record.audit is not None:
        parts.append(_held(record.audit))
    if rerun is not None:
        what = "its only op call" if rerun.coverage.rerun == 1 else f"all {_calls(rerun)}"
        parts.append(f"{what} gave the same bits in {plural(rerun.k, 'execution')}{_more(rerun)}")
        if missed := sum(rerun.coverage.not_covered.values()):
            caveats.append(f"{plural(missed, 'call')} could not be checked")
        if rerun.threads == 1:
            caveats.append("it ran on one thread, where races between threads cannot show")
        caveats += [f"but {one_line(text, 300)}" for text in rerun.caveats if not _of_thread(text)]
    if twin is not None and twin.steps:
        parts += [control_phrase(twin), change_phrase(twin)]
        if rerun is None:
            caveats.append("no op was checked by itself")
    return "; ".join([listing(parts), *caveats])


def _held(audit: AuditRecord) -> str:
    calls = plural(audit.coverage.rerun, "op call")
    moving = sum(bool(row.other_threads) for row in audit.ops)
    more = f", {moving} of {len(audit.ops)} classes change with the number of threads"
    return f"all {calls} gave the same bits from run to run" + (more if moving else "")


def _unknown(record: RunRecord) -> str:
    rerun = record.rerun
    if rerun is not None and rerun.neutral is False:
        return (
            "training ended with other bits under the probe than without it, so either the probe "
            "disturbed it or it is nondeterministic in a way no op showed"
        )
    if rerun is not None or record.audit is not None:
        return "not one op call could be executed again, so nothing was checked"
    return "nothing was checked"


def _price(record: RunRecord) -> str:
    arm = deterministic_arm(record)
    if arm is None or arm.ratio is None:
        why = one_line(arm.error, 200) if arm is not None and arm.error else "it was not timed"
        return f"no step can be taken in deterministic mode ({why})"
    noise = ", which is within the noise of this machine" if within_noise(arm) else ""
    return f"a step in deterministic mode takes {ratio(arm.ratio)} the time of a plain one{noise}"


def site_phrase(site: OpSite) -> str:
    """ "index_put_ in the backward of snippets.py:88"."""
    where = place(site.file, site.line)
    how = {
        "forward": f"at {where}",
        "backward": f"in the backward of {where}",
        "optimizer": f"in the optimizer step called at {where}",
    }
    return f"{short_op(site.op)} {how.get(site.phase, f'in {one_line(site.phase)} at {where}')}"


def best_fix(rerun: RerunRecord, site: OpSite) -> Fix | None:
    """The fix to name for `site`: the one that holds for whole steps, else the fastest verified."""
    verified = [fix for fix in site.fixes if fix.verified]
    for fix in verified:
        if fix.name == rerun.verified_fix:
            return fix
    return min(verified, key=lambda fix: math.inf if fix.ratio is None else fix.ratio, default=None)


def _fix_phrase(record: RunRecord, rerun: RerunRecord, site: OpSite) -> str:
    fix = best_fix(rerun, site)
    if fix is None:
        tried = listing([one_line(fix.name) for fix in site.fixes])
        return f"no fix found (tried: {tried})" if tried else "no fix is known to this tool"
    name = one_line(fix.name)
    cost = "" if fix.ratio is None else f" at {ratio(fix.ratio)} the op's time"
    arm = deterministic_arm(record)
    if cost and name == "deterministic mode" and arm is not None and arm.ratio is not None:
        told = "no measurable change of" if within_noise(arm) else ratio(arm.ratio)
        cost += f" ({told} a whole step's)"
    if rerun.verified_fix is None and rerun.of_script:
        return f"{name} fixes that call{cost}"
    if rerun.verified_fix is None:
        return f"{name} fixes that call{cost}, but no fix tried made whole steps repeatable"
    if rerun.verified_fix != fix.name:
        return f"{one_line(rerun.verified_fix)} fixes whole steps, verified by running them again"
    fixed = record.twin_fixed
    if fixed is not None and not fixed.control_identical:
        return f"{name} fixes the op{cost}, yet even so {control_phrase(fixed)}"
    return f"{name} fixes it, verified by running again,{cost}".rstrip(",")


def control_phrase(twin: TwinRecord) -> str:
    """What became of the unperturbed copy."""
    if twin.control_identical:
        return f"an unperturbed copy stayed bit-identical for {plural(twin.steps, 'step')}"
    step, name = twin.control_differs_step, twin.control_differs_name
    first = f" (first in {clip(name, 50)})" if name else ""
    if step is not None and step < 0:
        return f"two copies built from the same seed differed before the first step{first}"
    at = "" if step is None else f" at step {step}"
    return f"an unperturbed copy left the run's bits{at}{first}"


def change_phrase(twin: TwinRecord) -> str:
    """What became of the one changed bit."""
    if twin.absorbed_step is not None:
        return f"one changed bit was absorbed at step {twin.absorbed_step}"
    if twin.growth is not None:
        return f"one changed bit {growth_phrase(twin.growth)}"
    reason = growth_reason(twin)
    fraction = twin.series.get("fraction")
    if fraction is None or not len(fraction) or not twin.control_identical:
        return f"one changed bit has no growth rate ({reason})"
    share = percent(float(fraction[-1]))
    return (
        f"one changed bit reached {share} of the model's elements, with no growth rate ({reason})"
    )


def growth_reason(twin: TwinRecord) -> str:
    """Why there is no growth rate, up to the colon: figures follow it, for the table."""
    return one_line((twin.no_growth or "no reason was recorded").partition(": ")[0], 130)


def growth_phrase(growth: Growth) -> str:
    """ "grew 1.12x a step (doubling every 6.1 steps)", or that no growth can be told from none."""
    if not growth.low > 0 and not growth.high < 0:
        return "neither grew nor shrank measurably"
    factor = f"{number(math.exp(min(growth.rate, 700.0)))}x a step"
    if growth.rate < 0:
        return f"shrank to {factor}"
    if growth.doubling_steps is None:
        return f"grew {factor}"
    return f"grew {factor} (doubling every {number(growth.doubling_steps, 2)} steps)"


def deterministic_arm(record: RunRecord) -> CostArm | None:
    """The cost arm of plain deterministic mode."""
    arms = record.cost.arms if record.cost is not None else []
    return next((arm for arm in arms if printable(arm.name) == "deterministic"), None)


def within_noise(arm: CostArm) -> bool:
    """Whether the middle half of the arm's time ratios reaches both sides of 1."""
    return arm.spread is not None and arm.spread[0] <= 1.0 <= arm.spread[1]


def _of_thread(caveat: str) -> bool:
    """Whether the probe's caveat is the one of a single thread, for which there are words here."""
    return "one thread" in caveat.casefold()


def _more(rerun: RerunRecord) -> str:
    return "" if rerun.suspect_k is None else f" ({rerun.suspect_k} of what is suspect)"


def _calls(rerun: RerunRecord) -> str:
    return plural(rerun.coverage.rerun, "op call")


def _others(rerun: RerunRecord) -> str:
    more = len(rerun.sites) - 1
    return f" (and {plural(more, 'more place')})" if more else ""
