"""How far a comparison of two traces can be trusted, in sentences; they go into every report."""

from __future__ import annotations

from nondet_probe.records.difference import TraceDifference
from nondet_probe.records.trace import TraceMeta
from nondet_probe.report.difference_hints import next_step
from nondet_probe.report.difference_tables import cost_phrase
from nondet_probe.report.spell import number, one_line, plural, power_of_ten

__all__ = ["limits", "notes"]


def limits(difference: TraceDifference) -> list[str]:
    """How far to trust it, one sentence each; they belong into every report."""
    told = [f"Records were matched {one_line(difference.alignment, 300)}."]
    told.append(
        "Equal means equal digests of 128 bits: the chance that any of "
        f"{plural(difference.compared, 'compared pair')} differs all the same is at most "
        f"{_bound(difference.collision_bound)}."
    )
    told.append(
        "Seen is what goes through PyTorch's dispatcher on the threads of the training. What a "
        "kernel outside of it damages (an extension's own, the inside of a compiled or captured "
        "graph) shows one record later, as other inputs or as an op that could not have failed."
    )
    for run, meta in (("a", difference.meta_a), ("b", difference.meta_b)):
        if meta is not None:
            told += [f"Run {run}: {sentence}." for sentence in _of_run(meta)]
    return told


def notes(difference: TraceDifference) -> list[str]:
    """What the reader must know beside the verdict: a change made on purpose, runs that did not
    end, other machines, a root that cannot be to blame; and what to do next."""
    told = [f"Note: {text}." for text in [*_injected(difference), *_lines(difference.warnings)]]
    following = next_step(difference)
    return told if following is None else [*told, f"Next: {following}."]


def _injected(difference: TraceDifference) -> list[str]:
    """Of runs with a fault, what it has to do with the first difference."""
    told = []
    for run, meta in (("a", difference.meta_a), ("b", difference.meta_b)):
        injection = meta.injected if meta is not None else None
        if injection is None or injection.change is None:
            continue
        step = injection.fault.step
        if difference.step is None:
            then = "and nothing that was recorded shows it" if difference.equal else ""
        elif difference.step < step:
            then = "later than the first difference, which has another cause"
        elif difference.step == step:
            then = "where the runs first differ"
        else:
            then = "before the first difference that was recorded"
        what = f"run {run} had {one_line(injection.change.name)} changed on purpose in step {step}"
        told.append(f"{what}, {then}".removesuffix(", "))
    return told


def _bound(bound: float) -> str:
    if not bound:
        return "0"
    mantissa, _, exponent = f"{bound:.0e}".partition("e")
    # Rounded up: it is a bound.
    return (
        f"{int(mantissa) + 1}\u00d7{power_of_ten(int(exponent))}" if bound < 1e-3 else number(bound)
    )


def _of_run(meta: TraceMeta) -> list[str]:
    took = cost_phrase(meta).replace("\n", ", ")
    sentences = [f"cost of the recording: {took}"]
    if meta.level == "op" and not meta.inputs:
        sentences.append(
            "the inputs of ops were not digested, so a root is one by inference from what came "
            "before it"
        )
    if meta.level != "op":
        sentences.append(
            f"recorded at level {one_line(meta.level)}, which cannot tell one op from another"
        )
    if meta.names is not None:
        sentences.append(f"only names that match {one_line(meta.names)} were recorded")
    if meta.holds_tensors:
        sentences.append("tensors of the training, which are its user's data, lie beside the trace")
    return sentences + _lines(meta.caveats)


def _lines(texts: list[str]) -> list[str]:
    return [one_line(text, 600) for text in texts]
