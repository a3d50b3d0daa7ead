"""Indices that the scatter core must get through: hard, negative, out of range, none."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import bits_of, normal
from scattered import add, indices
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import index_put, variants

VARIANTS = [variant.name for variant in variants("index_add")]


def zipf(n: int, destinations: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).zipf(1.3, n) % destinations)


HARD_INDICES: dict[str, Callable[[int, int], Tensor]] = {
    "all to one": lambda n, d: torch.full((n,), d - 1),
    "one each": lambda n, d: torch.arange(n) % d,
    "zipf": zipf,
    "sorted": lambda n, d: indices(n, d).sort().values,
    "reversed": lambda n, d: indices(n, d).sort(descending=True).values,
    "ends only": lambda n, d: torch.arange(n) % 2 * (d - 1),
}


@pytest.mark.parametrize("name", HARD_INDICES)
def test_hard_indices(name: str) -> None:
    """float32 against sums by destination in float64 integers, which are exact."""
    for destinations, columns, n in ((70_000, 1, 70_000), (100, 1, 70_000), (300, 20, 3000)):
        index = HARD_INDICES[name](n, destinations)
        rng = np.random.default_rng(3)
        source = torch.from_numpy(rng.integers(-1000, 1000, (n, columns)).astype(np.float32))
        out = torch.full((destinations, columns), 0.5)
        sums = np.full((destinations, columns), 0.5)
        np.add.at(sums, index.numpy(), source.double().numpy())
        expected = bits_of(torch.from_numpy(sums).float())
        for variant, threads in (("ordered", 2), ("fixed_point", 2), ("exact", 2), ("atomic", 2)):
            assert bits_of(add(out, index, source, variant, threads)) == expected, variant


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("columns", [(), (2,), (40,)], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_index_is_named_and_nothing_is_written(
    variant: str, columns: tuple[int, ...], threads: int
) -> None:
    n = 40_000
    source = torch.ones(n, *columns)
    for bad in (6, -1, 2**63 - 1, -(2**63)):
        index, out = indices(n, 6), torch.zeros(6, *columns)
        index[[30_000, 39_999]] = bad
        for tail in (bad, 77):
            index[39_000] = tail
            with pytest.raises(IndexError, match=rf"index {bad} at position 30000 .* 6 rows"):
                add(out, index, source, variant, threads)
        assert not out.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_to_add_or_to_add_to(variant: str) -> None:
    none = torch.empty(0, dtype=torch.int64)
    for shape in ((4,), (4, 3), (4, 0), (0,), (0, 3)):
        out = torch.full(shape, -0.0)
        result = add(out, none, torch.empty(0, *shape[1:]), variant, 2)
        assert bits_of(result) == bits_of(out)
        assert result.shape == shape
    with pytest.raises(IndexError, match=r"index 0 at position 0 .* 0 rows"):
        add(torch.empty(0), torch.tensor([0]), torch.ones(1), variant)


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("variant", ["ordered", "fixed_point", "exact"])
@pytest.mark.parametrize("share", [1 / 5000, 0.5, 1.0])
def test_negative_indices_count_from_the_end(
    share: float, variant: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few, so that runs without any end at any place, or all of them."""
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    n, destinations = 150_000, 300
    index, source = indices(n, destinations), normal(n, torch.float32, 1)
    from_end = torch.from_numpy(np.random.default_rng(2).random(n) < share)
    given = torch.where(from_end, index - destinations, index)
    out = normal(destinations, torch.float32, 3)
    expected = bits_of(add(out, index, source, variant))
    for threads in (1, 3):
        found = index_put(out, (given,), source, variant=variant, threads=threads)
        assert bits_of(found) == expected
    given[[140_000, 149_999]] = -destinations - 1
    with pytest.raises(IndexError, match="index -301 at position 140000"):
        index_put(out, (given,), source, variant=variant, threads=3)
