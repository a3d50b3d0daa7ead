"""Kernels compiled ahead of time, without a GPU: PTX and machine code for each architecture.

Results stay in build/triton, Triton's own cache, which knows what each of them was made of: source,
flags, compiler. The first time takes a minute or two of two processes.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["CACHE", "compile_all", "compile_one"]

CACHE = Path(__file__).parents[2] / "build" / "triton"


def compile_one(
    kernel: Any,
    signature: dict[str, str],
    constants: dict[str, Any],
    architecture: int,
    num_warps: int = 4,
    fusion: bool = True,
    aligned: bool = False,
) -> str:
    """The PTX; the assembler has made machine code of it.

    fusion: whether the compiler may. aligned: pointers and sizes are multiples of 16, as launches
    mostly find them: accesses become wide.
    """
    os.environ["TRITON_CACHE_DIR"] = str(CACHE)
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    of_16 = {
        (place,): [["tt.divisibility", 16]]
        for place, kind in enumerate(signature.values())
        if aligned and kind.startswith(("*", "i"))
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=of_16)
    made = triton.compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": num_warps, "enable_fp_fusion": fusion},
    )
    assert made.asm["cubin"]
    ptx: str = made.asm["ptx"]
    return ptx


def _compile_job(number: int, architecture: int) -> str:
    from triton_table import jobs

    job = list(jobs())[number]
    signature, constants = job.source()
    return compile_one(job.build.kernel, signature, constants, architecture, job.build.num_warps)


def compile_all() -> dict[tuple[str, int], str]:
    """PTX by name of the job and architecture; an exception's text in the place of PTX."""
    from triton_table import ARCHITECTURES, jobs

    work = [
        (job.name, number, architecture)
        for number, job in enumerate(jobs())
        for architecture in ARCHITECTURES
    ]
    found = {}
    # Processes of their own, not forks: torch's threads are running here.
    with ProcessPoolExecutor(
        min(os.cpu_count() or 1, 8), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        running = {
            (name, architecture): pool.submit(_compile_job, number, architecture)
            for name, number, architecture in work
        }
        for key, future in running.items():
            error = future.exception()
            found[key] = future.result() if error is None else f"{type(error).__name__}: {error}"
    return found
