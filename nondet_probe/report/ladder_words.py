"""What a ladder says: a line for each rung, and what its reader must know beside the answer."""

from __future__ import annotations

from nondet_probe.records.ladder import Ladder, Rung
from nondet_probe.records.trace import LEVELS
from nondet_probe.report.spell import clip, one_line, plural
from nondet_probe.report.trace_words import step_phrase

__all__ = ["ladder_notes", "rung_line"]


def rung_line(rung: Rung) -> str:
    """Which rung, what was recorded, what the pair showed, and whether it is followed by a wider
    one."""
    text = f"rung {LEVELS.index(rung.level) + 1}, level {rung.level}, {_steps(rung)}, "
    text += f"{_names(rung)}: {_showed(rung)}"
    limited = rung.steps is not None or rung.names is not None
    return text + ("; the next pair looks further" if limited and rung.showed != "inside" else "")


def ladder_notes(ladder: Ladder) -> list[str]:
    """Sentences without a full stop."""
    rungs = ladder.rungs
    last = rungs[-1]
    told = [f"the script was run {plural(2 * len(rungs), 'time')}, in {plural(len(rungs), 'pair')}"]
    if last.showed != "agree":
        told[0] += f"; this is what the last one showed, in {last.folder}"
    elif len(rungs) == 1:
        told[0] += ": what does not differ in every pair may have been missed"
    else:
        told.append(
            f"recorded at level {last.level} the runs agreed, in all steps and modules, so nothing "
            f"finer can be told than what the pair in {ladder.answer} showed"
        )
    return told


def _steps(rung: Rung) -> str:
    return "the whole run" if rung.steps is None else f"steps {rung.steps[0]}-{rung.steps[1]}"


def _names(rung: Rung) -> str:
    return "all names" if rung.names is None else f"names like {clip(rung.names, 160)}"


def _showed(rung: Rung) -> str:
    if rung.showed == "agree":
        return f"the runs agree in {plural(rung.compared, 'pair')} of records"
    parts = [] if rung.step is None else [step_phrase(rung.step)]
    parts += [] if rung.phase is None or rung.phase == "setup" else [one_line(rung.phase, 40)]
    parts.append(clip(rung.op or rung.kind or "", 100))
    text = f"the runs differ, first in {', '.join(parts)}"
    if rung.module is not None:
        text += f" of {clip(rung.module, 80) or 'the model itself'}"
    if rung.showed == "outside":
        text += ", which may come from where nothing was recorded"
    return text
