"""The loop that other kernels are measured by really reads every byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nondet_probe import _C
from nondet_probe.bits.via_c import read_stream


def expected(data: torch.Tensor) -> int:
    """The same in numpy: 64-bit words, the last one filled up with zero bytes."""
    raw = data.numpy().tobytes()
    words = np.frombuffer(raw + bytes(-len(raw) % 8), dtype=np.uint64)
    return int(np.bitwise_xor.reduce(words)) if len(words) else 0


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("size", [0, 1, 7, 8, 511, 512, 513, 1024, 300_001, (9 << 20) + 12_345])
def test_every_byte_is_read(size: int, isa: str) -> None:
    data = torch.randint(256, (size + 3,), generator=torch.Generator().manual_seed(size))
    data = data.to(torch.uint8)[3:].clone() if size % 2 else data.to(torch.uint8)[3:]
    for threads in (1, 2, 5):
        assert read_stream(data, threads, isa) == expected(data)
    for place in {0, size // 2, size - 1} if size else set():
        changed = data.clone()
        changed[place] ^= 64
        assert read_stream(changed, 2, isa) != read_stream(data, 2, isa)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="isa=mmx"):
        read_stream(torch.zeros(4), 1, "mmx")
