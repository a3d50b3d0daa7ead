"""On a GPU: what raises under torch's deterministic mode does not, and gives the same bits every
time; a training with all of it does so too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from remade_cases import CASES, Given, as_dtype, copied, drawn, overload
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

import nondet_probe
from nondet_probe.bits import bit_equal, digest
from nondet_probe.env import deterministic_algorithms
from nondet_probe.mitigate.cuda_table import BREAKING
from nondet_probe.mitigate.measured import operator
from nondet_probe.mitigate.remade import PAIRS, REMADE

pytestmark = pytest.mark.gpu

NETWORK = Path(__file__).with_name("remade_network.py")
# By an op of this library.
ANSWERED = {"aten::cumsum", "aten::cumsum_", "aten::bincount"}


def on_gpu(given: Given) -> Given:
    return pytree.tree_map(lambda x: x.cuda() if isinstance(x, Tensor) else x, given)


def bits(found: Any) -> str:
    return " ".join(str(digest(x)) for x in pytree.tree_leaves(found))


ALL = [(name, number) for name in CASES for number in range(len(CASES[name]))]


@pytest.mark.parametrize(("name", "number"), ALL)
def test_what_raises_under_the_mode_does_not(name: str, number: int) -> None:
    made = CASES[name][number](as_dtype(drawn, torch.float32))
    given = on_gpu(made)
    # Strict: whatever is left to torch raises.
    with deterministic_algorithms(), nondet_probe.reproducible("run_to_run") as run:
        found = [overload(name)(*copied(given)) for _ in range(3)]
    assert len({bits(x) for x in found}) == 1
    report = run.report()
    assert not report.breaking
    if f"aten::{name}" in ANSWERED:
        return
    how = REMADE[f"aten::{name}"][0]
    assert report.rerouted[f"aten::{name} on cuda"][how] == 3
    if how == PAIRS:
        here = REMADE[f"aten::{name}"][1](None, *copied(made))
        assert bit_equal(found[0].cpu(), here)


# Not in the documentation's list, or said to raise there in some versions of torch only.
IN_SOME = {
    "_upsample_bicubic2d_aa_backward", "_upsample_bilinear2d_aa_backward", "kthvalue", "median.dim",
    "adaptive_max_pool3d_backward", "cumsum", "cumsum_", "nanmedian.dim",
}  # fmt: skip
RAISING = [name for name in CASES if operator(f"aten::{name}") in BREAKING and name not in IN_SOME]


@pytest.mark.parametrize("name", RAISING)
def test_torchs_own_does(name: str) -> None:
    """Or the test above would show nothing."""
    given = on_gpu(CASES[name][0](as_dtype(drawn, torch.float32)))
    with deterministic_algorithms(), pytest.raises(RuntimeError, match="deterministic"):
        overload(name)(*given)


def trained(report: Path) -> tuple[str, Any]:
    done = subprocess.run(
        [
            sys.executable, "-m", "nondet_probe", "reproducible", "--guarantee", "run_to_run",
            "--report", str(report), "--", str(NETWORK), "cuda",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(report.read_text())


def test_a_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    found = [trained(tmp_path / f"{number}.json") for number in range(3)]
    assert len({digests for digests, _ in found}) == 1
    report = found[0][1]
    assert report["holds"], report
    assert "aten::grid_sampler_2d_backward on cuda" in report["rerouted"]


def racing() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    where = torch.randint(31, (1 << 20,), generator=draw).cuda()
    values = torch.rand(1 << 20, generator=draw).cuda()
    return torch.zeros(31, device="cuda").index_add_(0, where, values)


def test_atomics_race_without_it_and_not_within() -> None:
    first = racing()
    assert any(not bit_equal(racing(), first) for _ in range(1000))
    for guarantee in ("run_to_run", "launch_invariant", "order_invariant", "correctly_rounded"):
        with nondet_probe.reproducible(guarantee) as run:
            assert len({bits(racing()) for _ in range(20)}) == 1
        assert set(run.report().rerouted) >= {"aten::index_add_ on cuda"}


def test_both_devices_in_one_block() -> None:
    x = drawn(70_001).float()
    with nondet_probe.reproducible() as run:
        here, there = x.sum(), x.cuda().sum()
    assert bit_equal(here, there.cpu())
    ways = run.report().rerouted
    assert ways["aten::sum"] == ways["aten::sum on cuda"] == {"sum fixed_order": 1}


@pytest.mark.parametrize(
    "backend", [torch.nn.attention.SDPBackend.FLASH_ATTENTION,
                torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION]
)  # fmt: skip
def test_attention(backend: Any) -> None:
    query = torch.rand(2, 4, 1024, 64, device="cuda", dtype=torch.float16, requires_grad=True)

    def gradient() -> Tensor:
        with torch.nn.attention.sdpa_kernel(backend):
            y = functional.scaled_dot_product_attention(query, query * 0.5, query + 1)
        return torch.autograd.grad(y.float().square().sum(), query)[0]

    with nondet_probe.reproducible("run_to_run") as run:
        assert len({bits(gradient()) for _ in range(10)}) == 1
    assert not run.report().breaking
