"""`fixed_order`, `pairwise` and `kahan` are formats (docs/ops.md), written here a second time with
numpy."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import bits_of, from_bits, normal
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops.rational import FORMATS, round_to_bits, tensor_of_bits

DTYPES = list(FORMATS)
CHUNK, LANES = 4096, 64


def chunk_sum(x: np.ndarray, fold_neighbours: bool = False) -> np.ndarray:
    """64 lanes, then folds. x: 1-D, at most CHUNK elements. fold_neighbours: another tree."""
    rows = -(-len(x) // LANES)
    padded = np.full(rows * LANES, -0.0, x.dtype)
    padded[: len(x)] = x
    lanes = np.full(LANES, -0.0, x.dtype)
    for row in padded.reshape(rows, LANES):
        lanes = lanes + row
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[0::2] + lanes[1::2] if fold_neighbours else lanes[:half] + lanes[half:]
    return lanes[0]


def folded(lanes: np.ndarray) -> np.ndarray:
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


def rows_of_lanes(x: np.ndarray) -> list[np.ndarray]:
    rows = -(-len(x) // LANES)
    padded = np.full(rows * LANES, -0.0, x.dtype)
    padded[: len(x)] = x
    return list(padded.reshape(rows, LANES))


def pairwise(x: np.ndarray) -> np.ndarray:
    rows = rows_of_lanes(x)
    while len(rows) > 1:
        odd = rows[len(rows) // 2 * 2 :]
        rows = [a + b for a, b in zip(rows[0::2], rows[1::2], strict=False)] + odd
    return folded(rows[0])


Pair = tuple[np.ndarray, np.ndarray]


def compensated(a: Pair, b: Pair) -> Pair:
    """Sums and what they lost, added; the new loss is found by Knuth's six operations."""
    total = a[0] + b[0]
    of_b = total - a[0]
    lost = (total - of_b - a[0]) + (of_b - b[0])
    return total, lost + (a[1] + b[1])


def kahan(x: np.ndarray) -> Pair:
    total, lost = np.full(LANES, -0.0, x.dtype), np.zeros(LANES, x.dtype)
    for row in rows_of_lanes(x):
        addend = row - lost
        following = total + addend
        lost = (following - total) - addend
        total = following
    while len(total) > 1:
        half = len(total) // 2
        total, lost = compensated((total[:half], lost[:half]), (total[half:], lost[half:]))
    return total[0], lost[0]


def documented_kahan(x: Tensor) -> Tensor:
    wide = x.numpy() if x.dtype in (torch.float64, torch.float32) else x.float().numpy()
    parts = [kahan(wide[start : start + CHUNK]) for start in range(0, len(wide), CHUNK)]
    while len(parts) > 1:
        odd = parts[len(parts) // 2 * 2 :]
        parts = [compensated(a, b) for a, b in zip(parts[0::2], parts[1::2], strict=False)] + odd
    total, lost = parts[0] if parts else (0.0, 0.0)
    exact = Fraction(float(total)) - Fraction(float(lost))
    return tensor_of_bits(round_to_bits(exact, x.dtype), x.dtype)


def documented(x: Tensor, of_chunk: Callable[[np.ndarray], np.ndarray] = chunk_sum) -> Tensor:
    wide = x.numpy() if x.dtype in (torch.float64, torch.float32) else x.float().numpy()
    partials = [of_chunk(wide[start : start + CHUNK]) for start in range(0, len(wide), CHUNK)]
    while len(partials) > 1:
        odd = partials[len(partials) // 2 * 2 :]
        partials = [a + b for a, b in zip(partials[0::2], partials[1::2], strict=False)] + odd
    return torch.tensor(partials[0] if partials else 0.0).to(x.dtype)


LENGTHS = [*range(513), 4095, 4096, 4097, 8191, 8192, 8193, 12289, 20000, 7 * 4096, 100_003]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tree_is_the_documented_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(LENGTHS[-1], dtype, 1)
    expected = {n: bits_of(documented(x[:n])) for n in LENGTHS}
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for n in LENGTHS:
            assert bits_of(sum_all(x[:n], variant="fixed_order")) == expected[n], (isa, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_baselines_are_the_documented_ones(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(LENGTHS[-1], dtype, 1)
    lengths = [*range(0, 200, 3), *range(200, 513, 31), *LENGTHS[513:]]
    trees = {n: bits_of(documented(x[:n], pairwise)) for n in lengths}
    sums = {n: bits_of(documented_kahan(x[:n])) for n in lengths}
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        for n in lengths:
            assert bits_of(sum_all(x[:n], variant="pairwise")) == trees[n], (isa, n)
            assert bits_of(sum_all(x[:n], variant="kahan")) == sums[n], (isa, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_chunks_on_many_threads(dtype: torch.dtype) -> None:
    x = normal((13 << 20) // dtype.itemsize + 4097, dtype, 2)  # work for three
    expected = bits_of(documented(x))
    for threads in range(1, 9):
        assert bits_of(sum_all(x, variant="fixed_order", threads=threads)) == expected


def test_another_tree_gives_other_bits() -> None:
    x = normal(4096, torch.float32, 1)
    neighbours = documented(x, lambda chunk: chunk_sum(chunk, fold_neighbours=True))
    assert (
        len({bits_of(sums)[0] for sums in (neighbours, documented(x), documented(x, pairwise))})
        == 3
    )


@pytest.mark.parametrize("variant", ["fixed_order", "two_pass", "kahan", "pairwise", "atomic"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_and_specials(variant: str, dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    one = bits_of(torch.ones(1, dtype=dtype))[0]
    for patterns, expected in (
        ([], 0),
        ([form.sign] * 100, form.sign),
        ([form.sign] * 99 + [0], 0),
        ([one, one | form.sign], 0),
        ([form.infinity, one], form.infinity),
        ([form.infinity | form.sign, one], form.infinity | form.sign),
        ([form.infinity, form.infinity | form.sign], form.quiet_nan),
        ([form.quiet_nan | form.sign | 5, one], form.quiet_nan),
        ([form.infinity + 1], form.quiet_nan),
        ([1] * 3, 3),
    ):
        x = from_bits(patterns, dtype)
        assert bits_of(sum_all(x, variant=variant)) == [expected], patterns
