"""Backends: what is said about them, and that one which is asked for never gives way to another."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from nondet_probe import ops
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import backends, registry
from nondet_probe.ops.backends import available, kernels, offers

HERE_WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
MISSING = {"triton": "triton is not installed; pip install 'nondet_probe[triton]'"}


def call(op: str, x: Tensor, **how: object) -> Tensor:
    index = torch.zeros(len(x), dtype=torch.int64)
    inputs = {
        "softmax": (x, 1),
        "log_softmax": (x, 1),
        "layer_norm": (x, x.shape[1:]),
        "rms_norm": (x, x.shape[1:]),
        "cross_entropy": (x, index),
        "index_add": (x, 0, index, x),
        "scatter_add": (x, 0, index.view(-1, 1).expand(x.shape), x),
        "matmul": (x, x.T),
        "attention": (x, x, x),
    }[op]
    result: Tensor = getattr(ops, op)(*inputs, **how)
    return result


def test_every_backend_is_listed_with_a_reason() -> None:
    found = {backend.name: backend for backend in available()}
    assert set(found) == set(backends.BACKENDS)
    assert found["cpu"].usable
    assert all(backend.reason and "\n" not in backend.reason for backend in found.values())


@pytest.mark.parametrize("op", offers("triton"))
def test_the_cpu_can_be_named(op: str) -> None:
    x = torch.randn(4, 6)
    assert torch.equal(call(op, x, backend="cpu"), call(op, x))


@pytest.mark.parametrize("op", offers("triton"))
@HERE_WITHOUT_GPU
def test_triton_never_falls_back(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = next(iter(offers("triton")[op]))
    how = {} if "softmax" in op else {"variant": variant}
    x = torch.ones(4, 6)
    monkeypatch.setattr(backends, "_MISSING", {"triton": ""})
    with pytest.raises(TypeError, match=rf"^{op} variant '{variant}'.*on cuda, got one on cpu"):
        call(op, x, backend="triton", **how)
    monkeypatch.setattr(backends, "_MISSING", MISSING)
    with pytest.raises(UsageError, match=rf"^{op} variant '{variant}'.*pip install"):
        call(op, x, backend="triton", **how)


@pytest.mark.parametrize("op", offers("triton"))
def test_an_unknown_backend_is_refused(op: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown backend 'tritn'; did you mean 'triton'"):
        call(op, torch.ones(4, 6), backend="tritn")


def test_a_variant_that_is_not_offered_is_refused() -> None:
    x = torch.ones(4, 6)
    with pytest.raises(UsageError, match=r"has no variant 'exact' of matmul; it has splitk_atomic"):
        ops.matmul(x, x.T, variant="exact", backend="triton")
    with pytest.raises(UsageError, match=r"backend 'cpu' has fixed_order"):
        ops.attention(x, x, x, variant="atomic")
    with pytest.raises(UnknownNameError, match="unknown variant of attention"):
        ops.attention(x, x, x, variant="atomics")
    with pytest.raises(UsageError, match="has no sum; it has softmax"):
        kernels("sum", "exact", "triton", x)


def test_what_triton_would_refuse_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_MISSING", {"triton": ""})
    monkeypatch.setattr(backends, "_INTERPRETED", True)
    x = torch.ones(4, 6)
    with pytest.raises(TypeError, match="takes float32, bfloat16, float16; got float64"):
        kernels("attention", "atomic", "triton", x.double())
    with pytest.raises(TypeError, match="dense tensors, got layout"):
        kernels("matmul", "fixed_split", "triton", x.to_sparse())
    with pytest.raises(TypeError, match="on one device, got cpu and meta"):
        kernels("matmul", "fixed_split", "triton", x, x.to("meta"))
    with pytest.raises(UsageError, match="threads are the CPU's"):
        kernels("matmul", "fixed_split", "triton", x, threads=2)
    with pytest.raises(TypeError, match=r"takes tensors on cuda, got one on meta"):
        kernels("matmul", "fixed_split", "triton", x.to("meta"))


def test_offers_are_of_variants_that_exist() -> None:
    for op, of_op in offers("triton").items():
        if op == "attention":
            continue  # its variants on a GPU are its own
        known = {variant.name: variant for variant in registry.variants(op)}
        for name, offer in of_op.items():
            assert set(offer.dtypes) <= set(known[name].dtypes)
            assert set(offer.bits_of_cpu) <= set(offer.dtypes)
            assert offer.guarantee <= known[name].guarantee


def test_cuda_is_asked_for_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(4, 6)
    monkeypatch.setattr(backends, "_MISSING", {"cuda": "is not in this build", "triton": ""})
    with pytest.raises(UsageError, match="backend 'cuda' is not in this build"):
        ops.softmax(x, 1, backend="cuda")
    monkeypatch.setattr(backends, "_MISSING", {"cuda": "", "triton": ""})
    with pytest.raises(TypeError, match="backend 'cuda' takes tensors on cuda, got one on cpu"):
        ops.softmax(x, 1, backend="cuda")
    with pytest.raises(UsageError, match="has no attention; it has softmax"):
        ops.attention(x, x, x, backend="cuda")
    for op, of_op in offers("cuda").items():
        known = {variant.name: variant for variant in registry.variants(op)}
        for name, offer in of_op.items():
            assert offer.guarantee == known[name].guarantee, (op, name)


def test_offers_of_the_cpu_are_in_the_registry() -> None:
    with pytest.raises(UnknownNameError, match="unknown backend"):
        offers("cpu")


@pytest.mark.parametrize("statement", ["nondet_probe.ops", "nondet_probe.ops.attention"])
def test_importing_ops_does_not_import_triton(statement: str) -> None:
    code = f"import sys, {statement}; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_triton_is_said() -> None:
    hide = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'triton' else find(name, *rest)\n"
        "from nondet_probe.ops.backends import available\n"
        "print(*(backend.reason for backend in available() if backend.name == 'triton'))"
    )
    environment = {name: value for name, value in os.environ.items() if "TRITON" not in name}
    done = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == MISSING["triton"]
