"""`fixed_order` is a format (docs/ops.md): its tree, written here a second time with numpy."""

import numpy as np
import pytest
import torch
from generators import bits_of, from_bits, normal
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops.rational import FORMATS

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


def documented(x: Tensor, **changes: bool) -> Tensor:
    wide = x.numpy() if x.dtype in (torch.float64, torch.float32) else x.float().numpy()
    partials = [
        chunk_sum(wide[start : start + CHUNK], **changes) for start in range(0, len(wide), CHUNK)
    ]
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
def test_many_chunks_on_many_threads(dtype: torch.dtype) -> None:
    x = normal((13 << 20) // dtype.itemsize + 4097, dtype, 2)  # work for three
    expected = bits_of(documented(x))
    for threads in range(1, 9):
        assert bits_of(sum_all(x, variant="fixed_order", threads=threads)) == expected


def test_another_tree_gives_other_bits() -> None:
    x = normal(4096, torch.float32, 1)
    assert bits_of(documented(x, fold_neighbours=True)) != bits_of(documented(x))


@pytest.mark.parametrize("variant", ["fixed_order", "atomic"])
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
