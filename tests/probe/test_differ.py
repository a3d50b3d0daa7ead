"""What comes first in two traces is found and named, and all that only follows is counted."""

from __future__ import annotations

import pytest
from made_traces import Made, made, op

from nondet_probe.errors import RecordError
from nondet_probe.probe.differ import diff_traces
from nondet_probe.probe.differ.traces import COLLISION, MAX_ROOTS
from nondet_probe.records.difference import Change, TraceDifference
from nondet_probe.records.trace import SETUP, Site
from nondet_probe.records.trace_reader import Trace

RNG = Site("data", "rng", "torch cpu")
BATCH = Site("data", "batch", "loader 0")
LOSS = Site("forward", "loss", "loss")
WEIGHT = Site("state", "parameter", "net.fc.weight")
MOMENT = Site("state", "optimizer", "net.fc.weight exp_avg")
MEAN = Site("state", "buffer", "net.bn.running_mean")
GRADIENT = Site("backward", "gradient", "net.fc.weight")
MM, ADD, RELU, ADAM = op("mm"), op("add"), op("relu"), op("_foreach_add_", phase="optimizer")


def step(number: int) -> list[Made]:
    """One step of a run: all records have digests of their own, which follow from the step."""
    seed = 1000 * (number + 1)
    return [
        (number, RNG, None, seed),
        (number, BATCH, seed + 1, seed + 2),
        (number, MM, seed + 2, seed + 3),
        (number, ADD, seed + 3, seed + 4),
        (number, RELU, seed + 4, seed + 5),
        (number, ADD, seed + 5, seed + 6),
        (number, LOSS, None, seed + 6),
        (number, op("mm", phase="backward"), seed + 6, seed + 7),
        (number, GRADIENT, None, seed + 7),
        (number, ADAM, seed + 7, seed + 8),
        (number, WEIGHT, None, seed + 8),
        (number, MOMENT, None, seed + 9),
        (number, MEAN, None, seed + 10),
    ]


RUN = [(SETUP, WEIGHT, None, 1), *step(0), *step(1), *step(2)]
PER_STEP = len(step(0))


def changed(records: list[Made], *at: int, inputs: bool = False) -> list[Made]:
    """Other outputs at these places, or other inputs."""
    rows = list(records)
    for place in at:
        number, site, given, gave = rows[place]
        given = -given if inputs and given is not None else given
        rows[place] = (number, site, given, gave if inputs or gave is None else -gave)
    return rows


def differ(a: list[Made], b: list[Made], **meta: object) -> TraceDifference:
    return diff_traces(made(a, "a", **meta), made(b, "b", **meta))


def test_equal_runs() -> None:
    found = differ(RUN, RUN)
    assert found.equal
    assert (found.kind, found.roots, found.propagated, found.step) == (None, [], 0, None)
    assert found.compared == len(RUN)
    assert found.alignment == "record by record: both runs have the same sequence"
    digests = sum((row[2] is not None) + (row[3] is not None) for row in RUN)
    assert found.collision_bound == digests * COLLISION
    assert found.warnings == []


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (0, "input"),  # the weights the run began with
        (1, "rng"),
        (2, "batch"),
        (3, "op"),
        (7, "op"),  # the loss
        (9, "op"),  # a gradient that no op shows
        (10, "optimizer"),
        (11, "optimizer"),  # a parameter that no op shows
        (12, "optimizer"),
        (13, "buffer"),
    ],
)
def test_a_planted_change_is_found_and_all_else_counted(place: int, kind: str) -> None:
    place += PER_STEP if place else 0  # in step 1
    later = changed(changed(RUN, *range(place, len(RUN))), *range(place + 1, len(RUN)), inputs=True)
    found = differ(RUN, later)
    assert not found.equal
    assert found.kind == kind
    number, site, given, _ = RUN[place]
    assert (found.step, found.phase, found.op, found.module) == (
        number,
        site.phase,
        site.name,
        site.module,
    )
    assert found.roots[0].a is not None
    assert found.roots[0].a.number == place
    assert found.inputs_equal is (True if given is not None else None)
    # What has digests of its inputs is known to follow; the rest is counted with it.
    assert len(found.roots) == 1
    assert found.propagated == len(RUN) - place - 1


def test_several_roots() -> None:
    found = differ(RUN, changed(RUN, 3, 17, 18))
    assert [root.a.number for root in found.roots if root.a] == [3, 17, 18]
    assert [root.inputs_equal for root in found.roots] == [True] * 3
    assert found.propagated == 0
    assert [(one.step, one.phase, one.roots) for one in found.steps if one.roots] == [
        (0, "forward", 1),
        (1, "forward", 2),
    ]


def test_more_roots_than_are_listed() -> None:
    records = [(0, MM, number, 5) for number in range(MAX_ROOTS + 50)]
    found = differ(records, [(0, MM, number, 6) for number in range(MAX_ROOTS + 50)])
    assert (len(found.roots), found.more_roots, found.propagated) == (MAX_ROOTS, 50, 0)


def test_a_batch_of_other_samples() -> None:
    found = differ(RUN, changed(changed(RUN, 2), 2, inputs=True))
    assert (found.kind, found.inputs_equal) == ("batch", False)


def test_arguments_that_nothing_explains() -> None:
    found = differ(RUN, changed(RUN, 4, inputs=True))
    assert (found.kind, found.op, found.inputs_equal) == ("input", "aten.add.default", False)
    assert any("no record shows where" in text for text in found.warnings)


def test_an_exact_op_is_not_the_one_to_blame() -> None:
    found = differ(RUN, changed(RUN, 5))
    assert found.op == "aten.relu.default"
    assert any("only moves or selects bits" in text for text in found.warnings)
    assert not any("only moves" in text for text in differ(RUN, changed(RUN, 4)).warnings)


def test_switches_come_before_any_op() -> None:
    def run(records: list[Made], threads: int, cpu: str = "x") -> object:
        environment = {
            "commit": {"id": str(threads)},
            "machine": {"cpu": cpu},
            "switches": {"torch.get_num_threads": threads, "environment": {"MKL_CBWR": "AVX2"}},
        }
        return made(records, "r", environment=environment, command=["train.py", str(threads)])

    found = diff_traces(run(RUN, 1), run(changed(RUN, 3), 2))
    assert (found.kind, found.op, found.inputs_equal) == ("environment", "aten.mm.default", True)
    assert found.environment == [
        Change("torch.get_num_threads", 1, 2),
        Change("commit.id", "1", "2"),
        Change("command", "train.py 1", "train.py 2"),
    ]
    same = diff_traces(run(RUN, 1), run(RUN, 2))
    assert (same.equal, same.kind, len(same.environment)) == (True, None, 3)
    other = diff_traces(run(RUN, 1), run(RUN, 1, "y"))
    assert [text for text in other.warnings if "cpu x" in text and "cpu y" in text]


def test_a_commit_alone_does_not_take_the_blame() -> None:
    a, b = (made(RUN, environment={"commit": {"id": name}}) for name in "ab")
    assert diff_traces(a, b).equal
    b = made(changed(RUN, 3), environment={"commit": {"id": "b"}})
    assert diff_traces(a, b).kind == "op"


def test_a_switch_that_one_run_changed_on_its_way() -> None:
    switch = (1, Site("data", "environment", "torch.backends.cudnn.benchmark"), None, 9)
    at = 1 + PER_STEP
    for records in ([*RUN[:at], switch, *RUN[at:]], [*RUN[:at], switch, *changed(RUN, 17)[at:]]):
        found = differ(RUN, records)
        assert (found.kind, found.op, found.step) == ("environment", switch[1].name, 1)
        assert found.not_aligned_b == {f"data environment {switch[1].name}": 1}


def test_an_op_that_one_run_has_not() -> None:
    """What follows is compared all the same, and is no root: it was given other inputs."""
    without = changed(changed(RUN, *range(6, len(RUN))), *range(6, len(RUN)), inputs=True)
    del without[5]
    found = differ(RUN, without)
    assert (found.kind, found.op, found.step) == ("order", "aten.relu.default", 0)
    assert found.roots[0].b is None
    assert found.not_aligned_a == {"forward op aten.relu.default in net": 1}
    assert found.not_aligned_b == {}
    assert (found.compared, found.propagated) == (len(RUN) - 1, len(RUN) - 6)
    assert "2 of 4 common steps" not in found.alignment
    assert "3 of 4 common steps" in found.alignment
    turned = differ(without, RUN)
    assert (turned.kind, turned.op, turned.roots[0].a) == ("order", "aten.relu.default", None)


def test_an_op_more_does_not_hide_a_root() -> None:
    extra = (0, op("sum"), 77, 78)
    found = differ(RUN, [*RUN[:3], extra, *changed(RUN, 19)[3:]])
    assert (found.kind, found.op, found.step) == ("op", "aten.add.default", 1)
    assert found.not_aligned_b == {"forward op aten.sum.default in net": 1}
    assert len(found.roots) == 1


def test_an_op_more_and_nothing_else() -> None:
    found = differ(RUN, [*RUN[:3], (0, op("sum"), 77, 78), *RUN[3:]])
    assert (found.equal, found.kind, found.propagated) == (False, "order", 0)


def test_a_module_computed_twice() -> None:
    """As by checkpointing, or a second try: the same calls again, with the same digests."""
    again = [*RUN[:7], *RUN[3:7], *RUN[7:]]
    found = differ(RUN, again)
    assert (found.kind, found.propagated) == ("order", 0)
    assert sum(found.not_aligned_b.values()) == 4
    assert found.compared == len(RUN)


def test_calls_in_another_order() -> None:
    """Autograd's threads: the same calls, two of them of one op, in any order."""
    first, second = (0, MM, 501, 502), (0, MM, 503, 504)
    a, b = [*RUN[:4], first, second, *RUN[4:]], [*RUN[:4], second, first, *RUN[4:]]
    found = differ(a, b)
    assert found.equal
    assert "stand elsewhere in their step" in found.alignment
    # And one of them gives another result.
    found = differ(a, changed(b, 4))
    assert [(root.a.number, root.b.number) for root in found.roots if root.a and root.b] == [(5, 4)]
    assert found.inputs_equal is True


def test_outputs_that_change_places_for_equal_inputs_are_a_finding() -> None:
    a, b = [(0, MM, 1, 2), (0, MM, 1, 3)], [(0, MM, 1, 3), (0, MM, 1, 2)]
    assert len(differ(a, b).roots) == 2


def test_batches_in_another_order_differ() -> None:
    first, second = (0, BATCH, 1, 2), (0, BATCH, 3, 4)
    assert differ([first, second], [second, first]).kind == "batch"


def test_other_ops_in_another_order() -> None:
    a = [(0, MM, 1, 2), (0, RELU, 3, 4), (0, ADD, 5, 6)]
    found = differ(a, [a[1], a[2], a[0]])
    assert (found.equal, found.compared) == (True, 3)


def test_calls_that_compiled_code_makes_have_no_module() -> None:
    """Eager against compiled: the same op on the same tensors is the same call."""
    compiled = [(s, site._replace(module=None), i, o) for s, site, i, o in RUN]
    found = differ(RUN, compiled)
    assert (found.equal, found.compared) == (True, len(RUN))
    assert "in another module" in found.alignment
    found = differ(RUN, changed(compiled, 4))
    assert [root.b.number for root in found.roots if root.b] == [4]
    assert found.inputs_equal is True
    # But not where only the name is the same.
    found = differ([(0, MM, 1, 2)], [(0, op("mm", "other"), 3, 4)])
    assert (found.kind, found.compared) == ("order", 0)


def test_equal_calls_that_stand_elsewhere_all_find_a_partner() -> None:
    many = [(0, op("ones"), 7, 8)] * 9
    found = differ([*many, *step(0)], [*step(0), *many])
    assert (found.equal, found.compared) == (True, PER_STEP + 9)
    other = [(0, op("ones"), 7, 9)] * 9
    found = differ([*many, *step(0)], [*step(0), *other])
    assert (found.compared, len(found.roots)) == (PER_STEP + 9, 9)


def test_files_of_two_checkouts_align() -> None:
    def at(folder: str, shift: int) -> list[Made]:
        sites = [ADD._replace(file=f"/{folder}/m.py", line=line + shift) for line in (3, 4, 5)]
        return [(0, site, place, place + 10) for place, site in enumerate(sites)]

    assert differ(at("x", 0), at("y", 7)).equal


def test_lines_tell_which_of_several_calls_is_missing() -> None:
    calls = [(0, op("add", line=line), line, 90 + line) for line in (3, 4, 5, 6)]
    other = changed(changed(calls, 0, 1, 2, 3), 0, 1, 2, 3, inputs=True)
    del other[1]
    assert differ(calls, other).not_aligned_a == {"forward op aten.add.default in net (m.py:4)": 1}


def test_without_inputs_the_first_is_inferred_and_the_rest_cannot_be_told() -> None:
    def outputs(records: list[Made]) -> list[Made]:
        return [(number, site, None, gave) for number, site, _, gave in records]

    found = differ(outputs(RUN), outputs(changed(RUN, 3, 20)), inputs=False)
    assert (found.roots[0].inputs_equal, found.roots[0].inferred) == (True, True)
    assert (len(found.roots), found.propagated) == (1, 1)
    assert any("a second cause cannot be told" in text for text in found.warnings)


def test_nothing_is_inferred_where_something_was_not_seen() -> None:
    a, b = ([(0, MM, None, 1), (0, ADD, None, out)] for out in (2, 3))
    assert differ(a, b, inputs=False).roots[0].inferred
    hidden, shown = made(a, inputs=False), made(b, inputs=False)
    hidden.meta.coverage.not_covered["another thread"] = 1
    assert diff_traces(hidden, shown).roots[0].inputs_equal is None
    assert diff_traces(shown, hidden).roots[0].inputs_equal is None
    # Between the modules of a trace of modules anything may happen.
    assert differ(a, b, inputs=False, level="module").roots[0].inputs_equal is None


def test_equal_arguments_prove_nothing_about_tensors() -> None:
    a, b = ([(0, MM, 7, 1), (0, ADD, 7, 1 + out)] for out in (1, 2))
    assert len(differ(a, b, inputs=False).roots) == 1
    one = diff_traces(made(a, inputs=False), made(b, inputs=True))
    assert any("only one of the runs was recorded" in text for text in one.warnings)


def test_a_learning_rate_is_named() -> None:
    rate = (0, Site("optimizer", "optimizer", "optimizer 0, group 0: lr"), None, 70)
    a = [rate, (0, ADAM, 1, 2), (0, WEIGHT, None, 3)]
    found = differ(a, changed(changed(a, 0, 1, 2), 1, inputs=True))
    assert (found.kind, found.phase, found.op) == ("optimizer", "optimizer", rate[1].name)
    assert (len(found.roots), found.propagated) == (1, 2)


def test_a_learning_rate_is_told_before_a_generator_that_nobody_seeded() -> None:
    python = Site("data", "rng", "python")
    rate = Site("optimizer", "optimizer", "optimizer 0, group 0: lr")
    a = [(0, python, None, 5), (0, rate, None, 70), (1, python, None, 6)]
    found = differ(a, changed(a, 0, 1, 2))
    assert (found.kind, found.op) == ("optimizer", rate.name)
    assert "python was in other states all along" in " ".join(found.warnings)


def test_what_a_collective_was_given_is_not_compared() -> None:
    a = [(0, Site("backward", "collective", "wait_tensor.default"), 1, 2)]
    assert differ(a, changed(a, 0, inputs=True)).equal
    found = differ(a, changed(a, 0))
    assert (found.inputs_equal, found.kind) == (None, "op")
    assert any("traces of the other ranks" in text for text in found.warnings)


def test_modules_are_given_their_tensors_at_any_level() -> None:
    a = [module("net.fc", 1, 2), module("net.other", 3, 4)]
    found = differ(a, changed(a, 0, 1), level="module", inputs=False)
    assert [root.inputs_equal for root in found.roots] == [True, True]


def test_a_gradient_and_a_forward_of_a_module_are_not_mixed_up() -> None:
    gradients = [
        (0, Site("backward", "module", "Linear", "net", note=note), None, number)
        for number, note in enumerate(["gradient of the output", "gradient of output 1"])
    ]
    assert differ(gradients, gradients[::-1]).equal


def module(path: str, given: int, gave: int, step: int = 0) -> Made:
    return step, Site("forward", "module", "Linear", path), given, gave


def test_a_module_is_no_root_when_something_inside_of_it_is() -> None:
    a = [
        module("net.0.fc", 1, 2),
        module("net.0", 1, 3),
        module("net", 1, 4),
        module("net.1", 4, 5),
    ]
    b = changed(changed(a, 0, 1, 2, 3), 3, inputs=True)
    found = differ(a, b, level="module")
    assert [root.a.number for root in found.roots if root.a] == [0]
    assert (found.module, found.kind, found.propagated) == ("net.0.fc", "op", 3)
    # But a second one beside it is.
    found = differ(a, changed(a, 0, 3), level="module")
    assert [root.a.number for root in found.roots if root.a] == [0, 3]


def test_a_module_is_no_root_when_its_weights_are_other_ones() -> None:
    a = [module("net.fc", 1, 2), (0, WEIGHT, None, 3), module("net.fc", 1, 4, 1)]
    found = differ(a, changed(a, 1, 2), level="module")
    assert (found.kind, len(found.roots), found.propagated) == ("optimizer", 1, 1)
    # Once they are equal again, it is.
    again = [*a[:2], (1, WEIGHT, None, 5), module("net.fc", 1, 4, 2)]
    found = differ(again, changed(again, 1, 3), level="module")
    assert len(found.roots) == 2


def test_a_module_is_no_root_when_a_generator_differs() -> None:
    a = [(0, RNG, None, 1), module("net.drop", 1, 2)]
    found = differ(a, changed(a, 0, 1), level="module")
    assert (found.kind, len(found.roots)) == ("rng", 1)


def test_a_run_that_ended_early() -> None:
    found = diff_traces(made(RUN), made(RUN[: 1 + PER_STEP], status="failed", failure="killed"))
    assert (found.equal, found.kind, found.step) == (False, "order", 1)
    assert found.compared == 1 + PER_STEP
    assert "run b failed (killed): it is known up to step 0" in found.warnings
    left = made(RUN[: 1 + PER_STEP], status="complete", exit_code=7)
    assert "run b left with exit code 7, in step 0" in diff_traces(made(RUN), left).warnings


def test_recordings_of_different_extent_are_compared_where_they_meet() -> None:
    a, b = made(RUN), made(RUN[1 + PER_STEP : 1 + 2 * PER_STEP], steps=(1, 1))
    found = diff_traces(a, b)
    assert (found.equal, found.compared) == (True, PER_STEP)
    assert any("different steps" in text for text in found.warnings)
    coarse = [row for row in RUN if row[1].kind != "op"]
    found = diff_traces(a, made(coarse, level="module"))
    assert (found.equal, found.compared) == (True, len(coarse))
    assert any("level op, run b at level module" in text for text in found.warnings)


def test_traces_that_cannot_be_compared() -> None:
    with pytest.raises(RecordError, match=r"digests of format 'd', .*of 'e': they cannot be"):
        diff_traces(made(RUN), made(RUN, digest_format="e"))


def test_nothing_is_not_equal_to_nothing() -> None:
    found = differ([], [])
    assert (found.equal, found.compared, found.roots) == (False, 0, [])
    assert not differ(RUN, []).equal


def test_a_digest_that_one_side_lacks_is_a_difference() -> None:
    a = [(0, LOSS, None, 0)]
    assert differ(a, [(0, LOSS, None, None)]).kind == "op"


PYTHON = Site("data", "rng", "python")


def drawing(states: tuple[int, int], then: list[Made], name: str) -> Trace:
    """Two steps, with Python's generator in these states at their starts."""
    return made([(0, PYTHON, None, states[0]), *then, (1, PYTHON, None, states[1])], name)


@pytest.mark.parametrize(
    ("a", "b", "first"),
    [
        # Given the same, an op that differs does so whatever the generator's state.
        ((op("mul"), 1, 5), (op("mul"), 1, 6), "aten.mul.default"),
        # What an op was given may have been drawn from it.
        ((op("mul"), 1, 5), (op("mul"), 2, 6), "python"),
        (
            (Site("data", "batch", "loader 0"), None, 5),
            (Site("data", "batch", "loader 0"), None, 6),
            "python",
        ),
    ],
)
def test_a_generator_that_nobody_seeded_is_blamed_for_what_it_can_do(
    a: tuple[Site, int | None, int], b: tuple[Site, int | None, int], first: str
) -> None:
    found = diff_traces(drawing((1, 2), [(0, *a)], "a"), drawing((3, 4), [(0, *b)], "b"))
    assert found.op == first
    assert any("all along" in text for text in found.warnings) is (first != "python")


def test_a_generator_that_left_is_a_difference_even_if_nothing_came_of_it() -> None:
    found = diff_traces(drawing((1, 2), [], "a"), drawing((1, 3), [], "b"))
    assert (found.equal, found.kind, found.step) == (False, "rng", 1)
