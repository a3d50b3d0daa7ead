"""Kernels run on the threads that torch's own kernels run on, and survive a fork."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch  # noqa: F401  whose OpenMP it is

from nondet_probe import _C


def output_of(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


START = """
import os, torch
from nondet_probe import _C
from nondet_probe.ops import sum
torch.set_num_threads(2)
x = torch.ones(1 << 22)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="torch's wheels bring GNU's")
def test_the_pool_is_the_one_of_torch() -> None:
    assert _C.thread_pool() == "openmp"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_no_thread_is_started_beside_those_of_torch() -> None:
    told = output_of(
        START + "def count(): return len(os.listdir('/proc/self/task'))\n"
        "x.sum(); with_torch = count()\n"
        "most = 0\n"
        "for _ in range(20):\n"
        "    sum(x, variant='atomic', threads=2); most = max(most, count())\n"
        "sum(x, threads=4); four = count()\n"
        "print(with_torch, most, four)"
    )
    with_torch, most, four = map(int, told.split())
    assert most == with_torch
    assert four == with_torch + 2  # the count does see threads that are added


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    told = output_of(
        START + "sum(x, threads=2)\n"
        "print(_C.thread_pool(), flush=True)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    assert sum(x, threads=2).item() == 1 << 22\n"
        "    print(_C.thread_pool(), flush=True)\n"
        "    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "print(_C.thread_pool())"
    )
    assert told.split() == ["openmp", "std::thread", "openmp"]
