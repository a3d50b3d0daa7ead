"""What each part of a report means, for somebody who never saw the tool."""

from __future__ import annotations

from nondet_probe.records import RerunRecord, RunRecord
from nondet_probe.report.spell import count, one_line, plural, power_of_ten

__all__ = ["ARMS", "GLOSSARY", "SECTIONS", "audit_notes", "comparison", "words_used"]

SECTIONS = {
    "ops": (
        "Every op of the training steps was executed several times on bit-identical inputs, with "
        "the random numbers put back in between. An op whose outputs then differ is "
        "nondeterministic by itself."
    ),
    "sites": (
        "Each row is one such op at one place of the program. For a backward op the line is the "
        "forward call it belongs to."
    ),
    "fixes": (
        "Each change was tried on the recorded inputs of the call that differed most. A fix counts "
        "as verified only when every execution under it gave the same bits. The time ratio is that "
        "of the op alone with the fix to without it, not of the whole step."
    ),
    "settings": (
        "Every switch that decides about determinism, as the program left it, and whether it was "
        "in force for all of the ops. A line below the first says what is wrong."
    ),
    "classes": (
        "Each row is one op with one size of its operands (rounded up to powers of two). An op can "
        "be repeatable and yet change with the number of threads, or give the first row of a batch "
        "other bits when the batch grows. A switch is named where it was seen to make the bits the "
        "same in every execution, at every number of threads."
    ),
    "twin": (
        "Copies of the training were stepped side by side on the same batches with the same random "
        "numbers: the run, a twin in which one element was changed, and a control in which nothing "
        "was changed. The twin shows what the smallest possible difference becomes; the control "
        "shows that nothing else made it."
    ),
    "twins": (
        "Of these twins each has another element changed; the table of questions and answers, and "
        "the pictures of single tensors, are of twin 0."
    ),
    "onset": (
        "The same change at each of these steps. The twins of all but the first step took the "
        "run's state over as the step came, and so did an unchanged copy: where that one left the "
        "run, there are no figures."
    ),
    "conditions": (
        "The condition number of training is the largest ratio of the relative change of a result "
        "to that of the parameters it comes from. Every twin bounds it from below; its base-2 "
        "logarithm is how many bits training loses. Once the twins have nothing in common with the "
        "run, the ratio says no more than how small the change was."
    ),
    "twin_fixed": (
        "The same twin once more under the fix that was verified above, so that the changed bit is "
        "the only difference between the copies."
    ),
    "cost": (
        "The same training steps, run in several ways, interleaved step by step on this machine so "
        "that all see the same load. A ratio above 1 is slower than the default."
    ),
    "dearest": (
        "Seconds of each op in one step, its calls added up: the median of a few further steps in "
        "which every op was timed. An op's share of the cost is the difference between the columns."
    ),
    "coverage": (
        "What the probe looked at and what it could not. An op call that was not covered may still "
        "be nondeterministic."
    ),
    "overhead": (
        "What this look itself took, against the same steps without it. It is paid only while the "
        "probe runs; training without it is unchanged."
    ),
    "facts": "The machine, the versions, and the switches as they were found.",
}

# The arms of the cost table, in words.
ARMS = {
    "default": "determinism off, as PyTorch starts",
    "deterministic": "under torch.use_deterministic_algorithms(True)",
    "deterministic, no fill": (
        "the same, but new memory is not filled first "
        "(torch.utils.deterministic.fill_uninitialized_memory = False)"
    ),
    "reproducible": "inside nondet_probe.reproducible(), deterministic mode off",
}

GLOSSARY = {
    "op": "one operator call of PyTorch, such as a matrix product, the backward of an indexing, or "
    "a fused optimizer update",
    "bit-identical": "equal in every bit: no tolerance, -0.0 is not 0.0, and a NaN equals itself "
    "when its bits do",
    "execution": "one computation of an op from its inputs; K counts all of them, the first "
    "included",
    "ulp": "unit in the last place: two floating-point numbers that are direct neighbours are one "
    "ulp apart",
    "deterministic mode": "torch.use_deterministic_algorithms(True): PyTorch picks repeatable "
    "kernels where it has them and refuses ops that have none",
    "twin": "a copy of the training run with one bit of one weight changed, stepped in lockstep "
    "with the original",
    "control": "a second copy in which nothing was changed; as long as its bits stay those of the "
    "run, every difference of the twin comes from the changed bit",
    "relative distance": "the Euclidean norm of the difference of all parameters, divided by that "
    "of the run's own",
    "growth": "the factor by which that distance multiplies from one step to the next while it "
    "grows exponentially",
    "absorbed": "the changed bit left no trace: every bit of the state of training is again that "
    "of the run",
    "fate": "what became of the change over the whole run: absorbed, dormant (still there, not "
    "growing), growing, or saturated (it grew, and then stayed near one distance)",
    "coverage": "which op calls the probe could check, and which not",
    "step": "one training step, that is one batch; steps count from 0",
}

_RERUN_WORDS = ("op", "bit-identical", "execution", "ulp", "deterministic mode", "coverage")
_TWIN_WORDS = (
    "bit-identical", "ulp", "twin", "control", "relative distance", "growth", "absorbed", "fate",
)  # fmt: skip


def words_used(record: RunRecord) -> dict[str, str]:
    """The part of the glossary that a report on `record` needs, in its order."""
    needed = {"step"}
    if record.rerun is not None or record.audit is not None:
        needed.update(_RERUN_WORDS)
    if record.twin is not None or record.twin_fixed is not None:
        needed.update(_TWIN_WORDS)
    if record.cost is not None:
        needed.add("deterministic mode")
    return {word: meaning for word, meaning in GLOSSARY.items() if word in needed}


def audit_notes(record: RunRecord) -> list[str]:
    """How an audit compared, and what limits it."""
    audit = record.audit
    if audit is None:
        return []
    counts = ", ".join(map(str, audit.thread_counts))
    more = f", {audit.suspect_k} times where suspect" if audit.suspect_k is not None else ""
    statements = [
        f"Every op call was executed {plural(audit.k, 'time')}{more}; outputs were compared bit by "
        "bit, without a digest (collision probability 0).",
        f"The first call of each class was executed with {counts} threads too, with its first rows "
        "alone, and with two patterns in new memory.",
        "What PyTorch says is the documentation of torch.use_deterministic_algorithms.",
        f"The run had {plural(audit.threads, 'CPU thread')}.",
    ]
    told = [one_line(text, 600) for text in audit.caveats]
    return statements + [f"{text[:1].upper()}{text[1:]}." for text in told]


def comparison(rerun: RerunRecord) -> list[str]:
    """How equality was decided, and what K executions can miss."""
    statements = [
        "Outputs were compared bit by bit. No digest was involved, so there is no chance that two "
        "different outputs passed as equal (collision probability 0)."
    ]
    if rerun.k >= 2:
        statements.append(
            f"With K = {rerun.k}{_suspects(rerun)}, an op call that gives either of two results "
            f"with equal chance goes unseen once in {_odds(rerun.k)}; rarer differences go unseen "
            "more often. More executions (--k) and more steps (--steps) make a finding less "
            "likely to be missed."
        )
    if rerun.neutral is True:
        statements.append(
            "The probe changed nothing: training with it ended with the same bits as without it."
        )
    elif rerun.neutral is False:
        statements.append(
            "Training with the probe ended with other bits than without it: do not rely on this "
            "report until that is understood."
        )
    elif rerun.of_script:
        statements.append(
            "The script ran once, so its bits were not compared with those of a run without the "
            "probe."
        )
    elif rerun.sites:
        statements.append(
            "Whether the probe itself changed anything cannot be told here, since two runs of this "
            "workload differ anyway."
        )
    told = [one_line(text, 600) for text in rerun.caveats]
    caveats = [f"{text[:1].upper()}{text[1:]}." for text in told]
    if rerun.threads > 1:
        statements.append(f"The run had {plural(rerun.threads, 'CPU thread')}.")
    elif not any("one thread" in text.casefold() for text in caveats):
        statements.append("The run had one CPU thread: races between threads cannot show.")
    return statements + caveats


def _suspects(rerun: RerunRecord) -> str:
    if rerun.suspect_k is None:
        return ""
    return (
        f" ({rerun.suspect_k} for what gave other bits before, or PyTorch's documentation calls "
        "nondeterministic)"
    )


def _odds(k: int) -> str:
    """2 ** (k - 1), the inverse chance that k fair draws of two results all agree."""
    return count(2 ** (k - 1)) if k <= 24 else f"about {power_of_ten(round((k - 1) * 0.30103))}"
