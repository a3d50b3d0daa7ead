"""A covering sample of the grid of `torture.py`, and proof that it covers and can fail."""

from __future__ import annotations

import itertools

import pytest
import torch
from subjects import SUBJECTS
from torture import FACTORS, Case, covering, failure, grid_size, whole_grid

from nondet_probe.ops import Guarantee, ops, variants

SAMPLE = covering()


@pytest.mark.parametrize("subject", FACTORS["subject"])
def test_covering_sample(subject: str) -> None:
    failures = [told for case in SAMPLE if case.subject == subject and (told := failure(case))]
    assert not failures, "\n".join(failures)


def test_every_pair_of_values_is_in_the_sample() -> None:
    for (i, first), (j, second) in itertools.combinations(enumerate(FACTORS.values()), 2):
        met = {(case[i], case[j]) for case in SAMPLE}
        assert met == set(itertools.product(first, second))


def test_every_launch_invariant_variant_is_tortured() -> None:
    known = {
        f"{op} {variant.name}"
        for op in ops()
        for variant in variants(op)
        if variant.guarantee >= Guarantee.LAUNCH_INVARIANT
    }
    # Made of matmul and softmax, which are tortured.
    assert set(SUBJECTS) == known - {"attention fixed_order"}


def test_the_whole_grid_holds_each_case_once(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {name: list(values)[:2] for name, values in FACTORS.items()}
    monkeypatch.setattr("torture.FACTORS", short)
    cases = list(whole_grid(0))
    assert len(cases) == len(set(cases)) == grid_size() == 2 ** len(short)


def test_a_planted_mistake_is_told() -> None:
    case = Case("sum exact", "plain", 1000, torch.float32, 1, 2, "portable", 3)
    assert failure(case) is None
    told = failure(case, lambda x, threads: SUBJECTS["sum exact"].call(x, 1).nextafter(x[0]))
    assert told is not None
    assert "1 of 1 elements differ from the exact result, the first at 0" in told
