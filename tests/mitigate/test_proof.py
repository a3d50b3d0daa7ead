"""Training ends with the same bits on 1 to 4 threads, and without `reproducible` it does not.

Every count in a fresh process: what a process has computed before can decide how it goes on. The
count is asserted before and after every step (runs.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

RUNS = Path(__file__).with_name("runs.py")
NETWORKS = ["digits-cnn", "snippets-hashed", "encoder", "images", "large"]
LAUNCHER = ["-m", "nondet_probe", "reproducible", "--"]


@cache
def trained(way: str, threads: int) -> Any:
    """What runs.py prints: "digests" by network, and "report"."""
    launcher = LAUNCHER if way == "launcher" else []
    how = "context" if way == "context" else "plain"
    done = subprocess.run(
        [sys.executable, *launcher, str(RUNS), str(threads), how, *NETWORKS],
        capture_output=True,
        text=True,
        timeout=300,
        # More threads than cores would spin while they wait for each other.
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
    )
    assert done.returncode == 0, done.stderr
    if way == "launcher":
        assert "reproducible, launch_invariant:" in done.stderr
        assert "untouched, not measured" not in done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("way", ["context", "launcher"])
def test_same_bits_on_any_number_of_threads(way: str, threads: int) -> None:
    assert trained(way, threads)["digests"] == trained(way, 1)["digests"]


def test_nothing_ran_that_is_not_covered() -> None:
    report = trained("context", 3)["report"]
    assert report["holds"], report
    assert {"aten::mm", "aten::convolution_backward"} <= set(report["rerouted"])


@pytest.mark.parametrize(
    ("overload", "way"),
    [
        ("_softmax", "softmax fixed_order"),
        ("_softmax_backward_data", "softmax fixed_order"),
        ("native_layer_norm_backward", "layer_norm fixed_order"),
        ("mse_loss", "mean fixed_order"),
        ("smooth_l1_loss", "mean fixed_order"),
        ("binary_cross_entropy", "mean fixed_order"),
        ("binary_cross_entropy_with_logits", "mean fixed_order"),
        ("std.correction", "var fixed_order"),
        ("var.correction", "var fixed_order"),
        ("linalg_vector_norm", "norm fixed_order"),
        ("histogram.bin_ct", "histogram ordered"),
        ("sum.dim_IntList", "sum fixed_order"),
        ("mean", "mean fixed_order"),
        ("addmm", "slices"),
        ("elu_backward", "pieces"),
        ("mish_backward", "pieces"),
        ("softplus_backward", "pieces"),
        ("native_batch_norm", "one thread"),
    ],
)
def test_a_network_of_the_proof_goes_this_way(overload: str, way: str) -> None:
    assert trained("context", 3)["report"]["rerouted"][f"aten::{overload}"][way] > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_without_it_the_bits_differ(network: str) -> None:
    """Or the proof above would prove nothing."""
    alone = trained("default", 1)["digests"][network]
    assert any(trained("default", threads)["digests"][network] != alone for threads in (2, 3))
