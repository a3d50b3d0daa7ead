"""Fingerprints that others use, and pairs of tensors that fool at least one of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from digest_by_document import raw_bytes
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def words_of(tensor: Tensor) -> list[int]:
    """64-bit words of the bytes, the last filled up with zeros."""
    data = raw_bytes(tensor)
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]


def xor(tensor: Tensor) -> object:
    """torch's own `hash_tensor`, an XOR of the elements."""
    return int(torch.hash_tensor(tensor).item())


def norm(tensor: Tensor) -> object:
    """The sum of magnitudes, torch's DebugMode default; NaN here by its printed form."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return repr(float(tensor.double().abs().sum()))


def word_sum(tensor: Tensor) -> object:
    """The plain sum of 64-bit words."""
    return sum(words_of(tensor)) % 2**64


def odd_weights(tensor: Tensor) -> object:
    """One lane of a multilinear hash mod 2^64 with odd weights: sees every position."""
    weights = torch.randint(-(2**62), 2**62, (4096,), generator=torch.Generator().manual_seed(7))
    total = 0
    for word, weight in zip(words_of(tensor), weights.tolist(), strict=False):
        total += word * (2 * weight + 1)
    return total % 2**64


WEAK: dict[str, Callable[[Tensor], object]] = {
    "xor": xor,
    "norm": norm,
    "word_sum": word_sum,
    "odd_weights": odd_weights,
}


def numbers(count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Distinct multiples of 1/64 in random order: their sums are exact in any order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return ((order + 1) / 64).to(dtype)


def _with(tensor: Tensor, indices: list[int], change: Callable[[Tensor], Tensor]) -> Pair:
    changed = tensor.clone()
    changed[indices] = change(changed[indices])
    return tensor, changed


def _negated(t: Tensor) -> Tensor:
    return -t


def _one_up(t: Tensor) -> Tensor:
    return (t.view(torch.int32) + 1).view(torch.float32)


def _swapped(tensor: Tensor, i: int, j: int) -> Pair:
    return _with(tensor, [i, j], lambda t: t.flip(0))


def _blocks_swapped() -> Pair:
    x = numbers(4096)
    return x, torch.cat([x[1024:2048], x[:1024], x[2048:]])


def _equal_pair() -> Pair:
    x = numbers(64)
    x[9] = x[40]
    return _with(x, [9, 40], _one_up)


def _opposite_steps() -> Pair:
    x = torch.arange(100, 200)
    changed = x.clone()
    changed[3] += 1
    changed[77] -= 1
    return x, changed


def _from_int(patterns: list[int]) -> Tensor:
    return torch.tensor(patterns, dtype=torch.int32).view(torch.float32)


# name -> (the weak hashes that are fooled, the pair)
FOOLING: dict[str, tuple[tuple[str, ...], Callable[[], Pair]]] = {
    "one sign": (("norm",), lambda: _with(numbers(64), [5], _negated)),
    "two signs": (("norm", "xor"), lambda: _with(numbers(64), [4, 10], _negated)),
    "two signs at odd places": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: _with(numbers(64), [5, 11], _negated),
    ),
    "two signs in one pair of words": (
        ("norm", "xor"),
        lambda: _with(numbers(64), [8, 9], _negated),
    ),
    "float64 negation": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (numbers(64, torch.float64), -numbers(64, torch.float64)),
    ),
    "float32 negation": (("norm", "xor"), lambda: (numbers(64), -numbers(64))),
    "neighbours swapped": (("norm", "xor"), lambda: _swapped(numbers(64), 2, 3)),
    "float64 neighbours swapped": (
        ("norm", "xor", "word_sum"),
        lambda: _swapped(numbers(64, torch.float64), 2, 3),
    ),
    "swap over a block boundary": (
        ("norm", "xor", "word_sum"),
        lambda: _swapped(numbers(4096), 100, 2100),
    ),
    "blocks swapped": (("norm", "xor", "word_sum"), _blocks_swapped),
    "permutation": (("norm", "xor"), lambda: (numbers(500), numbers(500, seed=1))),
    "reversal": (("norm", "xor"), lambda: (numbers(500), numbers(500).flip(0))),
    "transposition": (
        ("norm", "xor"),
        lambda: (numbers(400).reshape(20, 20), numbers(400).reshape(20, 20).t()),
    ),
    "roll by one": (("norm", "xor"), lambda: (numbers(500), numbers(500).roll(1))),
    "roll by the line between the two pairings": (
        ("norm", "xor", "word_sum"),
        lambda: (numbers(4096), numbers(4096).roll(16)),
    ),
    "roll by a block": (
        ("norm", "xor", "word_sum"),
        lambda: (numbers(4096), numbers(4096).roll(1024)),
    ),
    "equal pair changed together": (("xor",), _equal_pair),
    "opposite steps": (("norm", "word_sum"), _opposite_steps),
    "constants of even length": (
        ("xor",),
        lambda: (torch.full((64,), 1.5), torch.full((64,), 2.5)),
    ),
    "constants of different even lengths": (
        ("xor",),
        lambda: (torch.full((64,), 1.5), torch.full((62,), 1.5)),
    ),
    "zeros of different lengths": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (torch.zeros(64), torch.zeros(65)),
    ),
    "zeros of different shapes": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (torch.zeros(2, 3), torch.zeros(3, 2)),
    ),
    "zeros of different dtypes": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (torch.zeros(4), torch.zeros(4, dtype=torch.int32)),
    ),
    "zeros appended": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (numbers(64), torch.cat([numbers(64), torch.zeros(2)])),
    ),
    "a dimension of one": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (numbers(64), numbers(64).reshape(1, 64)),
    ),
    "0-d and one element": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (torch.tensor(1.5), torch.tensor([1.5])),
    ),
    "empty shapes": (
        ("norm", "word_sum", "odd_weights"),
        lambda: (torch.zeros(0, 3), torch.zeros(3, 0)),
    ),
    "bfloat16 and its float32": (
        ("norm", "xor"),
        lambda: (numbers(64).bfloat16(), numbers(64).bfloat16().float()),
    ),
    "the same bytes as integers": (
        ("word_sum", "odd_weights"),
        lambda: (numbers(64), numbers(64).view(torch.int32)),
    ),
    "bool and uint8": (
        ("norm", "xor", "word_sum", "odd_weights"),
        lambda: (torch.tensor([True, False]), torch.tensor([1, 0], dtype=torch.uint8)),
    ),
    "negative zero": (("norm",), lambda: (torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))),
    "NaN payloads": (
        ("norm",),
        lambda: (_from_int([0x7FC00000, 1]), _from_int([0x7FC00001, 1])),
    ),
    "sign of NaN": (("norm",), lambda: (_from_int([0x7FC00000]), _from_int([0x7FC00000 - 2**31]))),
    "complex conjugates": (
        ("norm",),
        lambda: (
            torch.complex(numbers(64), numbers(64)),
            torch.complex(numbers(64), numbers(64)).conj(),
        ),
    ),
}
