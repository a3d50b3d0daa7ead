"""Where the next pair looks, from what the last one showed: with pairs of runs that are made up."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nondet_probe.probe.ladder import Asked, Seen, climb, names_around
from nondet_probe.records.difference import Root, TraceDifference
from nondet_probe.records.ladder import SHOWED, Rung
from nondet_probe.records.trace import LEVELS, SETUP, Site, TraceRecord

STEPS = 8
MODULES = ["Net.a", "Net.a+b", "Net.c.a"]

Strike = tuple[int, str] | None
"""Step and module in which the runs of a pair begin to differ; None where they agree."""


def root(site: Site, step: int = 0, inputs_equal: bool | None = None) -> Root:
    record = TraceRecord(7, step, site, None, (1, 2))
    return Root(record, record, inputs_equal)


def difference(first: Root | None, folder: str = "1-step", kind: str = "op") -> TraceDifference:
    found = TraceDifference(first is None, f"{folder}/a", f"{folder}/b", 10, "")
    if first is not None:
        assert first.a is not None
        site = first.a.site
        found.roots, found.step, found.kind = [first], first.a.step, kind
        found.phase, found.op, found.module = site.phase, site.name, site.module
    return found


def op_of(module: str, step: int, inputs_equal: bool) -> Root:
    return root(Site("backward", "op", "aten.index_put.default", module), step, inputs_equal)


def weight_of(module: str, step: int, phase: str = "setup") -> Root:
    return root(Site(phase, "parameter", f"{module}.weight", module), step)


@dataclass
class Program:
    """A program whose pairs of runs begin to differ where `strikes` says, one for each pair in
    turn, the last one for all further pairs. Shows what a recording of it would."""

    strikes: list[Strike]
    asked: list[Asked] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)

    def climb(self) -> TraceDifference:
        return climb(self.pair, self.rungs.append, other_environment=False)

    def strike(self) -> Strike:
        return self.strikes[min(len(self.asked), len(self.strikes)) - 1]

    def pair(self, asked: Asked) -> Seen:
        self.asked.append(asked)
        return Seen(difference(self._shown(asked, self.strike()), f"{len(self.asked)}"))

    def _shown(self, asked: Asked, strike: Strike) -> Root | None:
        if strike is None or (asked.steps is not None and strike[0] > asked.steps[1]):
            return None
        step, module = strike
        if asked.level == "step":
            return root(Site("backward", "gradient", "gradient norm"), step)
        names = re.compile(asked.names or "")
        if asked.steps is not None and step < asked.steps[0]:
            seen = module if names.search(module) else MODULES[0]
            return weight_of(seen, asked.steps[0])
        if asked.level == "module":
            return root(Site("backward", "gradient", f"{module}.weight", module), step)
        if names.search(module):
            return op_of(module, step, True)
        other = next((one for one in MODULES if names.search(one)), None)
        return None if other is None else op_of(other, step, False)


strikes = st.one_of(st.none(), st.tuples(st.integers(0, STEPS - 1), st.sampled_from(MODULES)))


@given(st.lists(strikes, min_size=6, max_size=6))
def test_each_pair_is_judged_by_itself(where: list[Strike]) -> None:
    """Whatever the pairs before it showed, the last pair is right about itself; and a level is
    given up only when two runs agreed that were recorded whole."""
    program = Program(where)
    found = program.climb()
    assert len(program.asked) <= 6
    assert [rung.showed in SHOWED for rung in program.rungs] == [True] * len(program.asked)
    last, strike = program.asked[-1], program.strike()
    if program.rungs[-1].showed == "agree":
        assert strike is None
        assert last[1:] == (None, None)
        levels = [asked.level for asked in program.asked]
        finest = None if last.level == "step" else LEVELS[LEVELS.index(last.level) - 1]
        # The answer is what the last pair of the level before showed.
        assert found.a == (f"{levels.index(last.level)}/a" if finest else "1/a")
        assert found.equal == (finest is None)
    else:
        assert strike is not None
        assert last.level == "op"
        assert (found.step, found.module) == strike
        assert found.roots[0].inputs_equal


def test_what_repeats_takes_three_pairs() -> None:
    program = Program([(5, "Net.a+b")])
    found = program.climb()
    assert found.roots[0].inputs_equal
    assert program.asked[:2] == [Asked("step"), Asked("module", (4, 6))]
    assert program.asked[2] == Asked("op", (4, 6), program.asked[2].names)
    assert len(program.asked) == 3
    assert [rung.showed for rung in program.rungs] == ["inside"] * 3


def test_what_repeats_in_the_first_step_takes_three_pairs() -> None:
    program = Program([(0, "Net.a")])
    program.climb()
    assert [asked.steps for asked in program.asked] == [None, (0, 1), (0, 1)]


def test_runs_that_agree_are_not_run_again() -> None:
    program = Program([None])
    assert program.climb().equal
    assert program.asked == [Asked("step")]


@pytest.mark.parametrize(
    ("second", "third"),
    [
        ((7, "Net.a"), Asked("module")),  # not there yet: the whole run
        ((1, "Net.a"), Asked("module")),  # it came in from before
        (None, Asked("module")),
        ((4, "Net.a"), Asked("op", (3, 5), r"^(?:Net\.a(?:\.|\Z)|Net\Z)")),
    ],
)
def test_modules_are_looked_at_in_all_steps_when_not_found(second: Strike, third: Asked) -> None:
    program = Program([(4, "Net.a"), second, (4, "Net.a")])
    program.climb()
    assert program.asked[1] == Asked("module", (3, 5))
    assert program.asked[2] == third


@pytest.mark.parametrize(
    ("third", "wider"),
    [
        (None, [(None, "N"), (None, None)]),  # it strikes in other steps, or not at all
        ((7, "Net.a"), [(None, "N"), (None, None)]),
        ((1, "Net.a"), [(None, "N"), (None, None)]),  # it came in from before
        ((4, "Net.c.a"), [((3, 5), None), (None, None)]),  # it came in from another module
    ],
)
def test_ops_are_looked_at_in_more_steps_and_modules(
    third: Strike, wider: list[tuple[tuple[int, int] | None, str | None]]
) -> None:
    program = Program([(4, "Net.a"), (4, "Net.a"), third, third, third])
    program.climb()
    names = program.asked[2].names
    assert program.asked[2] == Asked("op", (3, 5), names)
    for asked, (steps, limited) in zip(program.asked[3:], wider, strict=False):
        assert asked == Asked("op", steps, names if limited else None)
    assert len(program.asked) > 3


def test_from_the_first_step_on_other_modules_come_before_the_setup() -> None:
    """There is no step before it, so what came in rather came from another module."""
    program = Program([(0, "Net.a"), (0, "Net.a"), (0, "Net.c.a")])
    found = program.climb()
    assert [asked.steps for asked in program.asked] == [None, (0, 1), (0, 1), (0, 1)]
    assert program.asked[3].names is None
    assert found.module == "Net.c.a"


def fixed(first: Root | None, kind: str) -> Callable[[Asked], Seen]:
    return lambda asked: Seen(difference(first, kind=kind))


def levels(record: Callable[[Asked], Seen], *, other_environment: bool = False) -> list[str]:
    rungs: list[Rung] = []
    climb(record, rungs.append, other_environment=other_environment)
    return [rung.level for rung in rungs]


GRADIENT = root(Site("backward", "gradient", "Net.a.weight", "Net.a"), 3)
LOSS = root(Site("forward", "loss", "loss"), 3)


@pytest.mark.parametrize("kind", ["rng", "batch", "environment"])
def test_what_is_not_computed_is_an_answer_at_once(kind: str) -> None:
    assert levels(fixed(root(Site("data", kind, "one"), 3), kind)) == ["step"]


def test_what_is_computed_is_looked_into() -> None:
    assert levels(fixed(LOSS, "op")) == ["step", "module", "op"]


def test_another_environment_is_an_answer_only_where_nobody_asked_for_it() -> None:
    record = fixed(GRADIENT, "environment")
    assert levels(record) == ["step"]
    assert levels(record, other_environment=True)[:3] == ["step", "module", "op"]
    # But a switch that was set on the way is one.
    record = fixed(root(Site("data", "environment", "switches"), 3), "environment")
    assert levels(record, other_environment=True) == ["step"]


@pytest.mark.parametrize("step", [SETUP, 0])
def test_what_was_there_at_the_beginning_needs_the_setup(step: int) -> None:
    asked: list[Asked] = []

    def record(what: Asked) -> Seen:
        asked.append(what)
        return Seen(difference(weight_of("Net.a", step)))

    climb(record, lambda rung: None, other_environment=False)
    assert asked == [Asked("step"), Asked("module"), Asked("op")]


def module(path: str, phase: str = "forward", kind: str = "module") -> Site:
    return Site(phase, kind, "Linear", path)


@pytest.mark.parametrize(
    ("site", "inputs_equal", "before", "wanted"),
    [
        (module("Net.b"), True, "Net.a", {"Net.b", "Net.b.x", "Net"}),
        # What was made between two modules, of functions that the modules around them call.
        (module("Net.b"), False, "Net.a", {"Net.a", "Net.a.x", "Net.b", "Net.b.x", "Net"}),
        (module("Net.b.x", "backward"), None, "Net.c", {"Net.b.x", "Net.b", "Net.c", "Net"}),
        (module("Net.b", "backward", "gradient"), None, None, {"Net.b", "Net.b.x", "Net"}),
        (module("Net.a+b"), True, None, {"Net.a+b", "Net.a+b.x", "Net"}),
        (module("Net.a+b.x"), True, None, {"Net.a+b.x", "Net.a+b", "Net"}),
        (module("Net.[a]"), True, None, {"Net.[a]", "Net"}),
        (module("Net#2"), True, None, {"Net#2"}),
    ],
)
def test_the_modules_that_are_looked_into(
    site: Site, inputs_equal: bool | None, before: str | None, wanted: set[str]
) -> None:
    record = None if before is None else TraceRecord(6, 3, module(before), None, None)
    names = names_around(root(site, 3, inputs_equal), record)
    assert names is not None
    every = {
        *("Net", "Net.a", "Net.a.x", "Net.b", "Net.b.x", "Net.c", "Net.bc", "Net.ab", "Net.aab"),
        *("Net.a+b", "Net.a+b.x", "Net.[a]", "Net#2", "Net.", "Other.Net.a"),
    }
    assert {one for one in every if re.search(names, one)} == wanted


@pytest.mark.parametrize(
    ("site", "before"),
    [
        (Site("forward", "loss", "loss"), "Net.b"),
        (Site("backward", "gradient", "optimizer 0, group 0: parameter 0"), "Net.b"),
        (Site("state", "parameter", "Net.b.weight", "Net.b"), "Net.b"),
        (Site("state", "optimizer", "Net.b.weight: exp_avg", "Net.b"), "Net.b"),
        (module("Net.b", "backward"), None),
        (module(""), "Net.b"),
    ],
)
def test_all_modules_where_the_op_may_be_anywhere(site: Site, before: str | None) -> None:
    record = None if before is None else TraceRecord(6, 3, module(before), None, None)
    assert names_around(root(site, 3), record) is None


def test_all_modules_where_nothing_is_known_of_what_ran_before() -> None:
    before = TraceRecord(6, 3, Site("forward", "loss", "loss"), None, None)
    assert names_around(root(module("Net.b", "backward"), 3), before) is None


def answers(*found: Root | None) -> list[Asked]:
    """What is asked for when the pairs show these, the last one again and again."""
    asked: list[Asked] = []

    def record(what: Asked) -> Seen:
        asked.append(what)
        return Seen(difference(found[min(len(asked), len(found)) - 1]))

    climb(record, lambda rung: None, other_environment=False)
    return asked


def test_a_module_is_no_root_where_not_all_inside_of_it_was_recorded() -> None:
    around = root(module("Net"), 3, True)
    asked = answers(LOSS, GRADIENT, around, op_of("Net.b", 3, True))
    assert [one.names is None for one in asked] == [True, True, False, True]


def test_the_first_step_is_not_all_where_an_optimizer_began_to_differ() -> None:
    stepped = weight_of("Net.a", 0, "state")
    asked = answers(stepped, stepped)
    assert asked[:3] == [Asked("step"), Asked("module", (0, 1)), Asked("module")]


def test_what_did_not_come_in_the_first_steps_may_come_later() -> None:
    weight = root(Site("backward", "gradient", "Net.a.weight", "Net.a"), 0)
    asked = answers(weight, weight, None)
    names = asked[2].names
    assert asked[2:] == [Asked("op", (0, 1), names), Asked("op", None, names), Asked("op")]
    assert names is not None
