"""Traces drawn at random, with a planted difference: it is what the differ names."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traces import Made, made, op

from nondet_probe.probe.differ import diff_traces
from nondet_probe.probe.differ.align import align
from nondet_probe.probe.differ.sequence import Budget, in_order
from nondet_probe.probe.differ.sides import sides
from nondet_probe.records.trace import Site

# Few sites, so that there are many repeats; few digests, so that there are equal records.
SITES = [
    op("mm"),
    op("add", "net", 3),
    op("add", "net", 4),
    op("add", "net.0"),
    op("relu", None),
    Site("data", "rng", "torch cpu"),
    Site("state", "parameter", "net.weight"),
]
CHECKED = settings(max_examples=60, deadline=None)
PLANTED = 1_000_000


@st.composite
def runs(draw: st.DrawFn, least: int = 0) -> list[Made]:
    """Records of up to four steps."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(-1, 2),
                st.sampled_from(SITES),
                st.none() | st.integers(0, 5),
                st.integers(0, 5),
            ),
            min_size=least,
            max_size=40,
        )
    )
    return sorted(rows, key=lambda row: row[0])


@CHECKED
@given(runs(1))
def test_equal_traces_never_differ(run: list[Made]) -> None:
    found = diff_traces(made(run), made(run))
    assert found.equal
    assert found.compared == len(run)
    assert (found.roots, found.propagated) == ([], 0)
    assert (found.not_aligned_a, found.not_aligned_b) == ({}, {})


@CHECKED
@given(runs(1), st.data(), st.booleans())
def test_a_planted_change_is_the_first_root(run: list[Made], data: st.DataObject, on: bool) -> None:
    """`on`: whether all that comes after it is damaged too."""
    place = data.draw(st.integers(0, len(run) - 1))
    other = list(run)
    for later in range(place, len(run) if on else place + 1):
        step, site, inputs, _ = run[later]
        if later > place and inputs is not None:
            inputs += PLANTED
        other[later] = (step, site, inputs, PLANTED + later)
    found = diff_traces(made(run), made(other))
    first = found.roots[0]
    assert not found.equal
    assert first.a is not None
    assert first.b is not None
    assert (first.a.number, first.b.number) == (place, place)
    assert (found.step, found.op) == (run[place][0], run[place][1].name)
    assert found.inputs_equal is not False
    assert len(found.roots) + found.propagated == (len(run) - place if on else 1)
    assert len(found.roots) == 1
    assert found.compared == len(run)


@CHECKED
@given(runs(), st.data())
def test_whatever_was_done_to_a_trace_every_record_is_accounted_for(
    run: list[Made], data: st.DataObject
) -> None:
    other = list(run)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(0, len(other) - 1)))
        match data.draw(st.sampled_from(["delete", "insert", "swap", "change"])):
            case "delete":
                del other[place : place + 1]
            case "insert":
                step = other[place][0] if other else 0
                other.insert(place, (step, data.draw(st.sampled_from(SITES)), 7, 8))
            case "swap":
                other[place : place + 2] = other[place : place + 2][::-1]
            case "change" if other:
                other[place] = (*other[place][:3], PLANTED)
    a, b = made(run), made(other)
    found = diff_traces(a, b)
    assert found.compared + sum(found.not_aligned_a.values()) == len(run)
    assert found.compared + sum(found.not_aligned_b.values()) == len(other)
    assert found.equal == (
        found.compared > 0
        and not found.roots
        and not found.not_aligned_a
        and not found.not_aligned_b
    )
    counted = [(s.equal, s.roots + s.propagated, s.only_a, s.only_b) for s in found.steps]
    totals = np.array(counted, np.int64).reshape(-1, 4).sum(axis=0).tolist()
    assert totals[0] + totals[1] == found.compared
    pairs = sides(a, b)
    aligned = align(*pairs)
    assert sorted(aligned.at_a.tolist() + aligned.only_a.tolist()) == list(range(len(run)))
    assert sorted(aligned.at_b.tolist() + aligned.only_b.tolist()) == list(range(len(other)))
    for name in ("op", "step"):
        of_a, of_b = (getattr(side, name) for side in pairs)
        assert np.array_equal(of_a[aligned.at_a], of_b[aligned.at_b])
    one, other_one = (
        side.at(at) for side, at in zip(pairs, (aligned.at_a, aligned.at_b), strict=True)
    )
    elsewhere = one.key != other_one.key
    assert not (elsewhere & one.proves & other_one.proves & (one.in0 != other_one.in0)).any()


@CHECKED
@given(runs(1), st.data())
def test_a_missing_record_is_the_only_one_not_aligned(run: list[Made], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(run) - 1))
    unique = [(step, site, 100 + n, 200 + n) for n, (step, site, _, _) in enumerate(run)]
    other = [*unique[:place], *unique[place + 1 :]]
    found = diff_traces(made(unique), made(other))
    assert (found.compared, found.propagated, found.more_roots) == (len(run) - 1, 0, 0)
    assert [root.a.number for root in found.roots if root.a] == [place]


@CHECKED
@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 4), max_size=30))
def test_sequences_are_matched_in_order(x: list[int], y: list[int]) -> None:
    one, other = np.array(x, np.int64), np.array(y, np.int64)
    for budget in (Budget(), Budget(0)):
        at_x, at_y = in_order(one, other, budget)
        assert np.array_equal(one[at_x], other[at_y])
        assert (np.diff(at_x) > 0).all()
        assert (np.diff(at_y) > 0).all()
    if x == y:
        assert len(at_x) == len(x)


def test_what_is_too_long_to_be_compared_in_full_is_left_open() -> None:
    x, y = np.array([1] + [5, 5, 6] * 300 + [2]), np.array([3] + [6, 6, 5, 5, 5] * 300 + [4])
    budget = Budget()
    assert len(in_order(x, y, budget)[0]) == 0
    assert budget.left == Budget().left
    assert len(in_order(x[:60], y[:60], budget)[0]) > 20
    assert budget.left < Budget().left
