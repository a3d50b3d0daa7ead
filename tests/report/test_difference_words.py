import dataclasses

import difference_examples as examples
import pytest

from nondet_probe.bits import BitChange
from nondet_probe.records import Fix
from nondet_probe.records.difference import Change, TraceDifference
from nondet_probe.records.fault import Fault, Injection
from nondet_probe.report.difference_limits import limits, notes
from nondet_probe.report.difference_words import difference_verdict

WHERE = "Step 17, backward of encoder.pos_bias (model.py:41): aten.index_put_ "
GAVE = "received bit-identical inputs and gave different outputs"
MORE = "214 later records are propagated from it"

EXPECTED = {
    "equal": "Equal: all 12\u202f345 pairs of records have the same bits.",
    "digests": f"{WHERE}{GAVE}; {MORE}.",
    "replayed": (
        f"{WHERE}{GAVE}, first at element 3112, 2 ulps; {MORE}. Cause: parallel float atomics at "
        "two or more threads. torch.use_deterministic_algorithms(True) removes it (verified: 0 of "
        "20 differ, 4.10x faster here)."
    ),
    "more_roots": f"Rank 3, s{WHERE[1:]}{GAVE}; {MORE} and 2 other roots.",
    "inferred": (
        f"{WHERE}gave different outputs, and nothing before it differs: its inputs, which were not "
        f"digested, must have been the same; {MORE}."
    ),
    "unknown_inputs": (
        f"{WHERE}gave different outputs; whether its inputs were the same cannot be told; {MORE}."
    ),
    "environment_differs": (
        "Before any op is to blame, the runs differ in torch.backends.cudnn.benchmark (False in "
        "run a, True in run b) and environment: OMP_NUM_THREADS (2 in run a, not set in run b). It "
        f"shows first in s{WHERE[1:]}{GAVE}; {MORE}."
    ),
    "switch_later": (
        "Step 17, data: before any op is to blame, a switch was set otherwise "
        "(torch.get_num_threads: 2 -> 1 in run a and torch.get_num_threads: 2 -> 1 in run b); "
        f"{MORE}."
    ),
    "rng": (
        "Step 17, data: random generator torch cpu is in another state, and no record before it "
        f"differs; {MORE}."
    ),
    "seed": (
        "Step 17, data: the seed of worker 2 of loader 0 is another one, and no record before it "
        f"differs; {MORE}."
    ),
    "batch": (
        "Step 17, data: the batch of loader 0 is made of other samples, and no record before it "
        f"differs; {MORE}."
    ),
    "same_samples": (
        "Step 17, data: the batch of loader 0, drawn by worker 1, holds other data, although its "
        f"samples have the same indices, and no record before it differs; {MORE}."
    ),
    "input": (
        f"{WHERE}received other inputs, and no record before it differs: another number or tensor "
        f"of the program's own, or one made where this recording does not see; {MORE}."
    ),
    "optimizer": (
        "Step 17, state: the optimizer's exp_avg of conv.bias differs, and no record before it "
        "does, so no gradient and no setting that was recorded: it was another one before the "
        f"step, or code changed it by hand; {MORE}."
    ),
    "buffer": (
        "Step 17, state: buffer bn.running_mean differs, and no record before it does; "
        f"{MORE}."
    ),
    "module": (
        f"Step 17, forward of layers.1 (model.py:7): the TransformerEncoderLayer {GAVE}; {MORE}."
    ),
    "initial_weights": (
        "Step 0: the initial weights differ, those of conv.bias first, and no record before it "
        f"differs; {MORE}."
    ),
    "weights_between": (
        "Step 17: parameter conv.bias was another one as the step began, and no record before it "
        f"differs: it was changed before the step, by what was not recorded; {MORE}."
    ),
    "weights_left": (
        "Step 17, state: the step left other weights in conv.bias, and no record before it "
        "differs, so no gradient and no setting of the optimizer that was recorded: it is the "
        f"optimizer's own state, or code that changes weights by hand; {MORE}."
    ),
    "learning_rate": (
        "Step 17, optimizer: the lr of optimizer 0, group 0 differs (0.1 and 0.2), and no record "
        f"before it does; {MORE}."
    ),
    "drawing": (
        "Step 17, forward of drop (model.py:9): random generator torch cpu is in another state as "
        "aten.bernoulli_.float draws from it, and no record before it differs: it was seeded "
        f"otherwise, or drawn from where this recording does not see; {MORE}."
    ),
    "worker": (
        "Step 17, data: random generator numpy of worker 1 of loader 0 is in another state, "
        "although the seed of that worker is the same: its worker_init_fn set it otherwise; "
        f"{MORE}."
    ),
    "norm": (
        "Step 17, backward: the gradients differ (of norm 0.5 in both runs), and no record before "
        f"them does; {MORE}."
    ),
    "switch_alone": (
        "Step 17, data: before any op is to blame, a switch was set in run a alone "
        f"(torch.get_num_threads: 2 -> 1); {MORE}."
    ),
    "gradient": (
        "Step 17, backward: the gradient of conv.bias differs, and no record before it does; "
        f"{MORE}."
    ),
    "loss": (
        "Step 17, forward: the loss differs (2.3125 and 2.3125000001), and no record before it "
        f"does; {MORE}."
    ),
    "order": (
        "Step 17, backward of encoder.pos_bias (model.py:41): run a has aten.index_put_ where run "
        "b has no such record; 4 records only in run a and 2 records only in run b; every record "
        "that both have is equal."
    ),
    "nothing": "No verdict: neither run holds a record that could be compared.",
    "bare": "Somewhere: a record differs.",
    "not_covered": (
        "Equal: all 12\u202f345 pairs of records have the same bits; 3 calls of run b could not be "
        "seen; yet the runs differ in versions: torch (2.12.0 in run a, 2.13.0 in run b)."
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPECTED)
def test_verdict(case):
    assert difference_verdict(examples.CASES[case]) == EXPECTED[case]


@pytest.mark.parametrize("case", examples.CASES)
def test_every_verdict_prints_on_one_line_and_ends_with_one_full_stop(case):
    text = difference_verdict(examples.CASES[case])
    assert text.endswith(".")
    assert ".." not in text
    assert text.replace("\u202f", "").isprintable()


def with_tried(*tried, differing=9):
    cause = dataclasses.replace(examples.CAUSE, tried=list(tried), differing=differing)
    return difference_verdict(examples.difference(examples.root(), kind="op", cause=cause))


def test_no_fix_is_named_that_was_not_verified():
    assert "removes it" not in with_tried(Fix("x", "x()", False, 20, 0.5))
    assert "removes it" not in with_tried(Fix("x", "x()", False, 0, error="could not be tried"))
    # One execution agrees with itself.
    assert "removes it" not in with_tried(Fix("x", "x()", True, 1, 0.5))
    # Nothing is removed where nothing differed.
    assert "removes it" not in with_tried(Fix("x", "x()", True, 20, 0.5), differing=0)


def test_the_fastest_verified_fix_is_named_with_its_price():
    slow, fast = Fix("slow", "slow()", True, 20, 3.0), Fix("fast", "fast()", True, 5, 1.5)
    told = "fast() removes it (verified: 0 of 5 differ, 1.50x the op's time here)."
    assert with_tried(slow, fast).endswith(told)
    assert with_tried(Fix("x", "x()", True, 5)).endswith(
        "x() removes it (verified: 0 of 5 differ)."
    )


def test_what_is_not_known_is_left_out():
    cause = dataclasses.replace(examples.CAUSE, element=None, ulps=None, text=None, tried=[])
    text = difference_verdict(examples.difference(examples.root(), kind="op", cause=cause))
    assert text == f"{WHERE}{GAVE}; {MORE}."
    cause = dataclasses.replace(cause, element=5)
    text = difference_verdict(examples.difference(examples.root(), kind="op", cause=cause))
    assert "outputs, first at element 5; " in text


def test_one_later_record_and_none():
    one = examples.difference(examples.root(), kind="op", propagated=1)
    assert difference_verdict(one).endswith("; 1 later record is propagated from it.")
    none = examples.difference(examples.root(), kind="op", propagated=0)
    assert difference_verdict(none).endswith("gave different outputs.")
    two = examples.difference(
        kind="op", propagated=0, roots=[examples.root(), examples.root()], step=1
    )
    assert difference_verdict(two).endswith("; 1 other record differs too.")


def test_roots_that_are_only_counted_count():
    many = examples.difference(examples.root(), kind="op", more_roots=5)
    assert "and 5 other roots" in difference_verdict(many)


def test_the_setup_and_step_0_are_called_so():
    first = examples.root(step=0)
    assert difference_verdict(examples.difference(first, kind="op")).startswith("Step 0, backward")
    first = examples.root(step=-1)
    assert difference_verdict(examples.difference(first, kind="op")).startswith("Setup, backward")


def test_the_model_itself_and_no_module():
    inside = examples.root(examples.OP._replace(module=""))
    told = difference_verdict(examples.difference(inside, kind="op"))
    assert "backward of the model itself (model.py:41)" in told
    outside = examples.root(examples.OP._replace(module=None, file=None, line=None))
    told = difference_verdict(examples.difference(outside, kind="op"))
    assert told.startswith("Step 17, backward: aten.index_put_ ")


def test_a_switch_set_on_the_way_is_told_as_a_record():
    case = dataclasses.replace(
        examples.SWITCH_LATER, environment=examples.ENVIRONMENT_DIFFERS.environment
    )
    text = difference_verdict(case)
    assert text.startswith("Step 17, data: before any op is to blame, a switch was set otherwise")
    assert "The runs also differ in torch.backends.cudnn.benchmark" in text


def test_every_report_tells_its_limits():
    for case in examples.CASES.values():
        text = " ".join(limits(case))
        assert "matched" in text
        assert "128 bits" in text
        assert "dispatcher" in text
        assert all(sentence.endswith(".") for sentence in limits(case))


def test_what_the_differ_warns_of_is_a_note_beside_the_verdict():
    assert notes(examples.NOT_COVERED) == ["Note: the runs were recorded on different machines."]
    assert notes(examples.EQUAL) == []


def test_limits_tell_the_bound_rounded_up_the_cost_and_what_the_runs_say():
    told = limits(examples.DIGESTS)
    assert any("at most 3\u00d710\u207b\u00b3\u00b9." in sentence for sentence in told)
    assert any(
        sentence.startswith("Run a: cost of the recording: 1.40x the plain step, expected 1.45x")
        for sentence in told
    )
    told = limits(examples.NOT_COVERED)
    for text in (
        "Run b: cost of the recording: not measured.",
        "Run b: the inputs of ops were not digested",
        "Run b: only names that match conv.* were recorded",
        "Run b: tensors of the training, which are its user's data, lie beside the trace.",
        "Run b: a caveat.",
    ):
        assert any(text in sentence for sentence in told), text
    assert any("cannot tell one op from another" in text for text in limits(examples.STEP_LEVEL))


def test_of_two_long_commands_what_differs_is_shown():
    command = "train.py --data /a/folder/with/a/long/name --epochs 20 --seed 1"
    other = command.replace("20", "30")
    found = dataclasses.replace(
        examples.RNG, environment=[Change("command", command, other + " --lr 2")]
    )
    told = difference_verdict(found)
    assert "command (\u2026 20 --seed 1 in run a, \u2026 30 --seed 1 --lr 2 in run b)" in told
    found.environment = [Change("command", command, other)]
    assert "command (\u2026 20 \u2026 in run a, \u2026 30 \u2026 in" in difference_verdict(found)


def test_what_to_do_next():
    (told,) = (text for text in notes(examples.DIGESTS) if text.startswith("Next:"))
    assert "nondet-probe diff runA runB --replay runs the script again" in told
    assert not any(text.startswith("Next:") for text in notes(examples.REPLAYED))
    (told,) = (text for text in notes(examples.STEP_LEVELS) if text.startswith("Next:"))
    assert told.startswith("Next: record both runs with --level op --steps 17 to see which op")
    assert not any(text.startswith("Next:") for text in notes(examples.EQUAL))


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (0.5, "2.00x faster here"),
        (1.03, "in the same time"),
        (0.97, "in the same time"),
        (1.5, "1.50x the op's time here"),
    ],
)
def test_what_a_fix_costs(times: float, said: str) -> None:
    told = with_tried(Fix("x", "x()", True, 20, times))
    assert told.endswith(f"x() removes it (verified: 0 of 20 differ, {said}).")


def test_one_thread_is_advised_only_if_nothing_else_serves() -> None:
    """All the rest of the training would run on it too."""
    one, other = Fix("one thread", "one()", True, 20, 0.1), Fix("x", "x()", True, 20, 1.5)
    assert "x() removes it" in with_tried(one, other)
    assert "one() removes it" in with_tried(one)


@pytest.mark.parametrize(
    ("step", "then"),
    [
        (16, "before the first difference that was recorded"),
        (17, "where the runs first differ"),
        (18, "later than the first difference, which has another cause"),
    ],
)
def test_a_change_made_on_purpose_is_told_first(step: int, then: str) -> None:
    found = injected(examples.difference(examples.root()), step)
    told = f"Note: run b had fc.weight changed on purpose in step {step}, {then}."
    assert notes(found)[0] == told


def test_a_change_that_nothing_shows() -> None:
    found = injected(examples.difference(equal=True), 3)
    assert notes(found)[0].endswith("in step 3, and nothing that was recorded shows it.")
    found.meta_b = examples.meta(injected=Injection(Fault("rng", index=0, bit=0)))
    assert not any("on purpose" in note for note in notes(found))


def injected(found: TraceDifference, step: int) -> TraceDifference:
    """Where run b had a fault."""
    change = BitChange("fc.weight", 2, 0, "float32", "0x00000000", "0x00000001")
    fault = Fault("weight", "fc.weight", 2, bit=0, step=step)
    meta = examples.meta(injected=Injection(fault, change))
    return dataclasses.replace(found, meta_a=examples.meta(), meta_b=meta)
