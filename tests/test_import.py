"""Importing is light, and every public name is really there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nondet_probe


def loaded_after(statement: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter has after `statement`."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "numpy", "scipy", "matplotlib", "sklearn", "triton", "jinja2"}


@pytest.mark.parametrize("statement", ["import nondet_probe", "import nondet_probe.cli"])
def test_import_is_light(statement: str) -> None:
    assert not loaded_after(statement) & HEAVY


def test_the_check_can_fail() -> None:
    assert {"torch", "numpy"} <= loaded_after("import nondet_probe.bits")


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    loaded = loaded_after(
        "import nondet_probe; [getattr(nondet_probe, n) for n in dir(nondet_probe)]"
    )
    assert not loaded & {"scipy", "matplotlib", "sklearn", "triton", "jinja2"}


def test_importing_does_not_initialise_cuda() -> None:
    code = (
        "import nondet_probe as n; [getattr(n, name) for name in dir(n)]; "
        "import torch; sys_ok = not torch.cuda.is_initialized(); raise SystemExit(not sys_ok)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", nondet_probe.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(nondet_probe, name) is not None
    assert name in dir(nondet_probe)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = nondet_probe.no_such_name
