"""The sketch a second time, in plain Python, from docs/sketch.md alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

B = 4096
G = 0x9E3779B97F4A7C15
SEED = int.from_bytes(b"ndp-sk-1", "little")
WORD = 2**64 - 1


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


TABLE = b"".join(
    mix(SEED + n * G & WORD).to_bytes(8, "little") for n in range(1, (B + B // 8) // 8 + 1)
)


def place(name: str, block: int) -> tuple[int, int, int]:
    """(rotation, stretch, whether negative) of a block."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    drawn = mix(seed + (block + 1) * G & WORD)
    return drawn % B, drawn // B % B, drawn >> 63


def sketch_of(tensors: Mapping[str, Tensor]) -> list[float]:
    """By single additions, one element at a time."""
    blocks = []
    for name in sorted(tensors, key=str.encode):
        values = tensors[name].double().reshape(-1).tolist()
        for block, start in enumerate(range(0, len(values), B)):
            blocks.append((place(name, block), values[start : start + B]))
    buckets = [0.0] * B
    for first in range(0, len(blocks), 64):
        run = [0.0] * B
        for (rotation, stretch, negative), values in blocks[first : first + 64]:
            for i, value in enumerate(values):
                bucket = (rotation + i) % B
                bit = TABLE[stretch + bucket // 8] >> bucket % 8 & 1
                run[bucket] += -value if bit ^ negative else value
        buckets = [a + b for a, b in zip(buckets, run, strict=True)]
    return buckets
