"""Every variant with a kernel in CUDA once, on little: what compute-sanitizer looks at.

python benchmarks/gpu_small.py [n]
"""

from __future__ import annotations

import sys

import torch

from nondet_probe.bits.digest import digests
from nondet_probe.ops import ops
from nondet_probe.probe.cases import CASES
from nondet_probe.probe.providers import providers


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    device = torch.device("cuda", torch.cuda.current_device())
    count = 0
    for case in (case for op in ops() for case in CASES[op]):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            inputs = tuple(one.to(device) for one in case.make(n, dtype))
            for provider in providers(case, inputs, n, dtype, device):
                # Not torch's own; and what Triton compiles is slow to start under a sanitizer.
                if provider.guarantee is None or provider.name.startswith("triton "):
                    continue
                if not provider.why_not:
                    provider.result()
                    count += 1
            digests(inputs)
    torch.cuda.synchronize()
    print(f"{count} calls")


if __name__ == "__main__":
    main()
