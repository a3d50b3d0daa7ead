"""`compare`, all figures of a pair of tensors in one pass, beside the plain reading of both.

python -m pytest benchmarks/bench_compare.py --benchmark-enable

Limit: both tensors must be read once, so no comparison takes less than `read_stream` over them.
Eight pairs of fp32 elements are 64 bytes: 1.9 ns at the 33 GB/s that one thread has for itself, 4.3
ns at 15 GB/s each for two. Of the instructions alone, where 512-bit ones go by halves:

    equal bits   looked at twice, 2 loads and an xor each; a conversion, 3 fused multiplications
    different    places 4, distance 3, largest 1, highest bit 2, counted 4, of 256 bits; 2
                 conversions, 4 multiplications and 2 additions of 512: some 32 for 4 units

So equal bits take 4 cycles, the latency of a sum that eight lanes share, and should hide behind the
memory (0.8); different ones take 8 or 9, 2.4 ns at 3.6 GHz, which is 0.8 at the very best and less
wherever memory is waited for (0.6). Two threads share the memory and come nearer. The 16-bit
dtypes bring half of the bytes for the same instructions, and half of that share.
"""

from __future__ import annotations

import pytest
import torch
from _harness import Row, interleave, keep_memory, rates, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.bits import compare, via_c

ROUNDS = 15
N = 10_000_000
BOUND = 0.8

keep_memory()


def pairs(dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Equal, with one different element in 5,000, and with all different."""
    source = torch.Generator().manual_seed(0)
    a = torch.randn(N, generator=source).to(dtype)
    few = a.clone()
    few[::5000] *= 1.5
    other = torch.randn(N, generator=source).to(dtype)
    return {"equal": (a, a.clone()), "one in 5000": (a, few), "all": (a, other)}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_share_of_the_read_stream(
    benchmark: BenchmarkFixture, dtype: torch.dtype, threads: int
) -> None:
    shares, name = {}, str(dtype).removeprefix("torch.")
    for case, (a, b) in pairs(dtype).items():
        calls = {
            "compare": lambda a=a, b=b: compare(a, b, threads=threads),
            "read_stream": lambda a=a, b=b: [via_c.read_stream(t, threads) for t in (a, b)],
        }
        times = interleave(calls, ROUNDS)
        shares[case] = ratios(times["read_stream"], times["compare"])
        rows = [
            Row(f"compare, {case}", who, name, N, threads, "rate", "GB/s", spread)
            for who, seconds in times.items()
            for spread in [rates(seconds, 2 * a.nbytes / 1e9)]
        ]
        rows.append(
            Row(
                f"compare, {case}", "compare", name, N, threads,
                "ratio to read_stream", "x", shares[case],
            )
        )  # fmt: skip
        write_rows("compare", rows)
    benchmark.pedantic(compare, (a, b), rounds=3)
    if dtype is not torch.bfloat16:
        assert {case: share.median for case, share in shares.items() if share.median < BOUND} == {}
