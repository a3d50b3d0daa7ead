"""Drawing without replacement, and the original's draw with its six repetitions."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from nondet_probe.errors import UsageError
from nondet_probe.probe.inject.draw import drawn, paper_stem


@pytest.mark.parametrize("total", [1, 2, 7, 432])
def test_all_draws_of_a_seed_are_all_elements(total: int) -> None:
    for seed in range(3):
        assert sorted(drawn(seed, n, total) for n in range(total)) == list(range(total))
    with pytest.raises(UsageError, match=f"have {total} elements, and none is drawn twice"):
        drawn(0, total, total)


def test_draws_are_the_same_for_ever() -> None:
    assert [drawn(1, n, 10_000_000) for n in range(4)] == [8551347, 2878874, 8751757, 1769682]


def test_every_order_is_as_likely() -> None:
    orders = Counter(tuple(drawn(seed, n, 3) for n in range(3)) for seed in range(6000))
    assert len(orders) == 6
    # Five standard deviations of a count of 1000.
    assert all(abs(count - 1000) < 150 for count in orders.values())


# paper.md's finding about seeds 1 to 100 in the 432 weights of ResNet-14's stem.
REPEATS = [(5, 20), (12, 94), (22, 26), (28, 59), (32, 47), (37, 68)]


def test_the_originals_draw_repeats_itself_six_times_in_a_hundred() -> None:
    seeds: dict[tuple[int, int], list[int]] = {}
    for seed in range(1, 101):
        seeds.setdefault(paper_stem(seed, 432), []).append(seed)
    assert len(seeds) == 94
    assert sorted(tuple(same) for same in seeds.values() if len(same) > 1) == REPEATS
    assert sum(len(same) for (_, direction), same in seeds.items() if direction == 1) == 45


def test_it_draws_what_the_global_generator_would() -> None:
    with torch.random.fork_rng(devices=[]):
        for seed in range(1, 20):
            torch.manual_seed(seed)
            element = int(torch.randint(0, 432, (1,)))
            up = float(torch.rand(1)) > 0.5
            assert paper_stem(seed, 432) == (element, 1 if up else -1)
