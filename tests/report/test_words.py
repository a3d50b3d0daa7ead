import dataclasses
import math
from typing import get_args

import pytest
import report_examples as examples

from nondet_probe.records import CostArm, Coverage, Fix, Growth
from nondet_probe.report.words import (
    Outcome,
    change_phrase,
    growth_phrase,
    outcome,
    site_phrase,
    verdict,
)

EXPECTED = {
    "clean": (
        "No nondeterminism seen in digits-cnn: all 214 op calls gave the same bits in 5 executions,"
        " an unperturbed copy stayed bit-identical for 100 steps and one changed bit grew 1.30x a "
        "step (doubling every 2.6 steps)."
    ),
    "nondeterministic": (
        "snippets-hashed is nondeterministic: index_put_ in the backward of snippets_hashed.py:88 "
        "gave different bits in 8 of 10 executions on the same inputs; deterministic mode fixes it,"
        " verified by running again, at 2.84x the op's time (1.12x a whole step's)."
    ),
    "failed": (
        "digits-cnn failed: twin: step 7 failed: RuntimeError: shapes (3, 4) and (5, 6) do not fit;"
        " until then no nondeterministic op was seen in 214 op calls and an unperturbed copy stayed"
        " bit-identical for 7 steps."
    ),
    "only_rerun": (
        "No nondeterminism seen in digits-cnn: all 214 op calls gave the same bits in 5 executions."
    ),
    "absorbed": (
        "No nondeterminism seen in digits-cnn: an unperturbed copy stayed bit-identical for 40 "
        "steps and one changed bit was absorbed at step 12; no op was checked by itself."
    ),
    "one_thread": (
        "No nondeterminism seen in digits-cnn: all 214 op calls gave the same bits in 5 executions;"
        " it ran on one thread, where races between threads cannot show."
    ),
    "control_only": (
        "digits-cnn is nondeterministic, although none of 214 op calls was seen to be: an "
        "unperturbed copy left the run's bits at step 0 (first in table.weight)."
    ),
    "built_differently": (
        "digits-cnn is nondeterministic: two copies built from the same seed differed before the "
        "first step (first in model.table.weight)."
    ),
    "disturbed": (
        "No verdict on digits-cnn: training ended with other bits under the probe than without it, "
        "so either the probe disturbed it or it is nondeterministic in a way no op showed."
    ),
    "audited": (
        "No nondeterminism seen in digits-cnn: all 9 op calls gave the same bits from run to run, "
        "1 of 2 classes change with the number of threads."
    ),
    "audited_unmet": (
        "digits-cnn does not have what it asks for: OMP_NUM_THREADS was set too late: it is read "
        "when torch is imported."
    ),
    "audited_nondeterministic": (
        "digits-cnn is nondeterministic: index_put gave different bits in 7 of 20 executions on "
        "the same inputs (and 1 more class); deterministic mode fixes it, verified; OMP_NUM_THREADS"
        " was set too late: it is read when torch is imported."
    ),
    "audited_nothing": (
        "No verdict on digits-cnn: not one op call could be executed again, so nothing was checked."
    ),
    "nothing": "No verdict on digits-cnn: nothing was checked.",
    "empty": "digits-cnn failed: twin: no step was done; until then nothing had been checked.",
}


@pytest.mark.parametrize("case", EXPECTED)
def test_verdict(case):
    assert verdict(examples.CASES[case]) == EXPECTED[case]


@pytest.mark.parametrize("case", examples.CASES)
def test_every_verdict_is_one_line_with_one_full_stop_at_its_end(case):
    text = verdict(examples.CASES[case])
    assert text.endswith(".")
    assert not text.endswith("..")
    assert text.replace("\u202f", "").isprintable()
    assert outcome(examples.CASES[case]) in get_args(Outcome)


def test_no_case_is_called_clean_unless_it_is():
    clean = {name for name, record in examples.CASES.items() if outcome(record) == "clean"}
    assert clean == {
        "clean",
        "only_rerun",
        "only_twin",
        "absorbed",
        "one_thread",
        "no_growth",
        "one_parameter",
        "many_parameters",
        "swept",
        "of_script",
        "audited",
    }


def test_nothing_rerun_is_no_clean_bill():
    record = examples.run(rerun=examples.rerun(coverage=Coverage(seen=3, views=3)))
    assert outcome(record) == "unknown"
    assert "nothing was checked" in verdict(record)


def test_calls_that_could_not_be_checked_are_in_the_sentence():
    record = examples.run(rerun=examples.rerun(coverage=Coverage(9, 5, 1, 1, {"subclass": 2})))
    assert outcome(record) == "clean"
    assert verdict(record).endswith("; 2 calls could not be checked.")


def test_failed_step_is_named_once():
    record = examples.run(status="failed", failure="the loss is nan at step 4", failed_step=4)
    assert verdict(record).count("step 4") == 1
    record = examples.run(status="failed", failure="the loss is nan", failed_step=4)
    assert "failed at step 4: the loss is nan" in verdict(record)
    assert "no reason was recorded" in verdict(examples.run(status="failed"))


def test_a_failed_run_that_found_something_says_so():
    record = examples.run(
        status="failed", failure="step 1 failed", rerun=examples.rerun(sites=[examples.site()])
    )
    assert "until then index_put_ in the backward of snippets_hashed.py:88 was nond" in verdict(
        record
    )


def with_fixes(*fixes, verified=None, **parts):
    rerun = examples.rerun(sites=[examples.site(fixes=list(fixes))], verified_fix=verified)
    return verdict(examples.run(rerun=rerun, **parts))


def test_the_fix_that_holds_for_whole_steps_is_named_before_a_faster_one():
    fast = Fix("index_add_", "...", True, 5, 0.5)
    mode = Fix("deterministic mode", "...", True, 5, 2.0)
    assert "deterministic mode fixes it" in with_fixes(fast, mode, verified="deterministic mode")


def test_a_fix_of_the_call_alone_is_not_sold_as_more():
    text = with_fixes(Fix("index_add_", "...", True, 5, 0.5), Fix("one thread", "...", True, 5, 2))
    assert "index_add_ fixes that call at 0.50x" in text
    assert "no fix tried made whole steps repeatable" in text


def test_no_fix():
    assert "no fix is known to this tool" in with_fixes()
    text = with_fixes(Fix("deterministic mode", "...", False, 5))
    assert "no fix found (tried: deterministic mode)" in text


def test_a_fix_under_which_the_control_still_differs_is_not_called_one():
    text = with_fixes(
        Fix("deterministic mode", "...", True, 5, 2.0),
        verified="deterministic mode",
        twin=examples.noisy_twin(),
        twin_fixed=examples.noisy_twin(control_differs_step=3),
    )
    assert "fixes it" not in text
    assert "yet even so an unperturbed copy left the run's bits at step 3" in text


def test_more_places_are_counted():
    rerun = examples.rerun(sites=[examples.site()] * 3)
    assert "on the same inputs (and 2 more places);" in verdict(examples.run(rerun=rerun))


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        ("forward", "sort at a.py:3"),
        ("backward", "sort in the backward of a.py:3"),
        ("optimizer", "sort in the optimizer step called at a.py:3"),
        ("other", "sort in other at a.py:3"),
    ],
)
def test_site_phrase(phase, text):
    site = examples.site(op="aten.sort.default", phase=phase, file="x/a.py", line=3)
    assert site_phrase(site) == text


def test_growth_phrases():
    def phrase(rate, low, high, doubling=None):
        return growth_phrase(Growth(rate, low, high, 0, 50, 0.9, doubling))

    assert phrase(math.log(2), 0.6, 0.8, 1.0) == "grew 2.00x a step (doubling every 1.0 steps)"
    assert phrase(math.log(2), 0.6, 0.8) == "grew 2.00x a step"
    assert phrase(-math.log(2), -0.8, -0.6) == "shrank to 0.500x a step"
    assert phrase(0.01, -0.1, 0.1, 70.0) == "neither grew nor shrank measurably"
    assert phrase(math.nan, math.nan, math.nan) == "neither grew nor shrank measurably"
    assert phrase(1e6, 1e5, 1e7).startswith("grew 1.01")


def test_absent_growth_gives_its_reason_without_the_figures():
    twin = examples.twin(growth=None, no_growth="no rate can be told from zero: over steps 3 to 99")
    assert change_phrase(twin) == (
        "one changed bit reached 98.5% of the model's elements, with no growth rate "
        "(no rate can be told from zero)"
    )
    noisy = examples.noisy_twin(no_growth="the run is nondeterministic")
    assert change_phrase(noisy) == (
        "one changed bit has no growth rate (the run is nondeterministic)"
    )


def test_a_caveat_of_the_probe_is_in_the_sentence_of_a_clean_run():
    text = verdict(examples.run(rerun=examples.rerun(caveats=["two plain runs ended differently"])))
    assert text.endswith("in 5 executions; but two plain runs ended differently.")
    once = verdict(examples.ONE_THREAD)
    assert once.count("one thread") == 1


def test_a_cost_within_noise_is_not_given_as_a_ratio():
    arm = CostArm("deterministic", [1.0], 0.97, (0.9, 1.1))
    text = with_fixes(
        Fix("deterministic mode", "...", True, 5, 2.0),
        verified="deterministic mode",
        cost=examples.cost(arms=[arm]),
    )
    assert "at 2.00x the op's time (no measurable change of a whole step's)." in text


def test_cost_alone_is_a_price():
    record = examples.run(cost=examples.cost())
    assert outcome(record) == "priced"
    assert verdict(record) == (
        "digits-cnn: a step in deterministic mode takes 1.12x the time of a plain one."
    )
    refused = CostArm("deterministic", [], error="put_ has no deterministic form")
    record = examples.run(cost=examples.cost(arms=[refused]))
    assert verdict(record) == (
        "digits-cnn: no step can be taken in deterministic mode (put_ has no deterministic form)."
    )


def test_outcome_agrees_with_the_record():
    for record in examples.CASES.values():
        if record.status == "complete":
            assert (outcome(record) == "nondeterministic") == record.nondeterministic


def test_a_new_status_is_never_clean():
    assert outcome(dataclasses.replace(examples.CLEAN, status="interrupted")) == "failed"


def test_plain_runs_that_differ_are_nondeterminism_although_no_op_was_seen():
    rerun = dataclasses.replace(
        examples.ONLY_RERUN.rerun, plain_runs_differ="model.weight", neutral=None
    )
    record = dataclasses.replace(examples.ONLY_RERUN, rerun=rerun)
    assert outcome(record) == "nondeterministic"
    assert "two plain runs with the same seed ended with different bits (first: model.weight)" in (
        verdict(record)
    )
