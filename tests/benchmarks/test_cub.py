"""The comparison with CUB: which headers are taken, and that cub_sum.cu compiles against them."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import _cub
import pytest
import torch
from _cub import LEVELS, cub, headers
from _cub_cases import INPUTS, cub_rows

from nondet_probe.ops import sum_ref


def with_version(folder: Path, number: int) -> Path:
    file = folder / "cuda" / "std" / "__cccl" / "version.h"
    file.parent.mkdir(parents=True)
    file.write_text(f"#pragma once\n#define CCCL_VERSION {number}\n")
    return folder


def test_the_first_headers_that_are_new_enough(tmp_path: Path) -> None:
    old = with_version(tmp_path / "old", 3_000_001)
    new = with_version(tmp_path / "new", 3_001_004)
    newer = with_version(tmp_path / "newer", 4_002_000)
    empty = tmp_path / "empty"
    assert headers([empty, old, new, newer]) == (new, "3.1.4")
    assert headers([newer, new]) == (newer, "4.2.0")
    said = headers([old, empty])
    assert isinstance(said, str)
    assert (
        "there is CCCL 3.0.1; gpu_to_gpu needs 3.1 or newer: pip install nvidia-cuda-cccl" in said
    )
    assert "there are no headers of CCCL" in headers([])


def test_without_nvcc_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert cub("90", 10) == "there is no nvcc"


def test_without_cub_its_answers_are_not_measured() -> None:
    rows = cub_rows("no headers", torch.device("cpu"))
    of_cub = [row for row in rows if row.provider != "exact"]
    assert [row.note for row in of_cub] == [f"{name}: no headers" for name in INPUTS]
    assert all(row.spread is None for row in of_cub)
    for row in rows:
        if row.provider == "exact" and row.metric == "answer":
            assert row.spread is not None
            right = sum_ref(INPUTS[row.note]()).double()
            assert row.spread.median == right or right.isinf() == (
                row.spread.median == float("inf")
            )
        elif row.provider == "exact":
            assert row.spread is not None
            assert row.spread.median == 1


class Wrong(_cub.Cub):
    """Its sum is the first addend."""

    def __init__(self) -> None:
        self.version = "0"

    def sum(self, x: torch.Tensor, level: str) -> torch.Tensor:
        return x[0]


def test_sums_that_depend_on_the_order_are_counted() -> None:
    rows = cub_rows(Wrong(), torch.device("cpu"))
    found = {(row.provider, row.note): row for row in rows if row.metric == "answers"}
    tiny = found["CUB gpu_to_gpu", "normal numbers times 1e-36"].spread
    assert tiny is not None
    assert tiny.median > 1
    assert found["exact", "normal numbers times 1e-36"].spread.median == 1  # type: ignore[union-attr]


def test_the_source_compiles_where_there_are_headers() -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the PATH")
    found = headers(_cub._places(Path(nvcc)))
    if isinstance(found, str):
        pytest.skip(found)
    made = cub("90", 300)
    assert not isinstance(made, str), made
    library: ctypes.CDLL = made._library
    assert ".".join(str(library.cub_version() // by % 1000) for by in (10**6, 10**3, 1)) == (
        made.version
    )
    assert all(hasattr(library, f"cub_{level}") for level in LEVELS)
