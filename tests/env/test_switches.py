"""Every switch is put back: after the body, an exception, nesting, re-entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from nondet_probe.env import deterministic_algorithms, read_switches, snapshot, thread_count

SWITCHES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "deterministic": lambda: deterministic_algorithms(),
    "warn_only": lambda: deterministic_algorithms(warn_only=True),
    "no fill": lambda: deterministic_algorithms(fill=False),
    "one thread": lambda: thread_count(1),
    "three threads": lambda: thread_count(3),
}


@pytest.fixture(params=SWITCHES, ids=str)
def switch(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[None]]:
    return SWITCHES[request.param]


def test_it_switches_and_puts_back(switch: Callable[[], AbstractContextManager[None]]) -> None:
    with thread_count(2):
        before = read_switches()
        with switch():
            assert read_switches() != before
        assert read_switches() == before


def test_after_an_exception(switch: Callable[[], AbstractContextManager[None]]) -> None:
    before = read_switches()
    with pytest.raises(KeyError), switch():
        raise KeyError
    assert read_switches() == before


def test_nested_and_entered_again(switch: Callable[[], AbstractContextManager[None]]) -> None:
    before = read_switches()
    for _ in range(2):
        with switch():
            inside = read_switches()
            with deterministic_algorithms(False), thread_count(4):
                pass
            assert read_switches() == inside
    assert read_switches() == before


def test_off_inside_on_is_really_off() -> None:
    with deterministic_algorithms():
        with deterministic_algorithms(False):
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()


def test_no_count_changes_nothing() -> None:
    before = torch.get_num_threads()
    with thread_count(None):
        assert torch.get_num_threads() == before


def test_bad_thread_count() -> None:
    with pytest.raises(ValueError, match="threads=0: at least 1"), thread_count(0):
        pass


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    found: dict[str, Any] = read_switches()
    assert found["environment"]["MKL_CBWR"] == "COMPATIBLE"


def test_of_variables_only_known_families_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MY_CUDA_PASSWORD", "TORCH_HOME", "CUDA_PATH")
    for name in secrets:
        monkeypatch.setenv(name, "planted")
    known = ("NONDET_PROBE_ISA", "TORCH_LOGS", "CUDA_VISIBLE_DEVICES", "KMP_AFFINITY")
    for name in known:
        monkeypatch.setenv(name, "wanted")
    found = json.dumps(snapshot())
    assert "planted" not in found
    assert not any(name in found for name in secrets)
    stored = read_switches()["environment"]
    assert {name: stored[name] for name in known} == dict.fromkeys(known, "wanted")
