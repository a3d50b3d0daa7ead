"""A user's file with small workloads, and a way to call the command line as a user does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nondet_probe.cli import main

WORKLOADS = """
import itertools
import os
import sys

import torch

from nondet_probe.workload import Workload

print("the user's module prints on import")


def plain(seed):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    draw = torch.Generator().manual_seed(seed)
    data = [torch.randn(32, 8, generator=draw) for _ in range(4)]
    return Workload(model, optimizer, itertools.cycle(data), loss)


def loss(model, batch):
    print("the user's code prints")
    return (model(batch) - batch.sum(1, keepdim=True)).square().mean()


@torch.library.custom_op("cli_test::unstable", mutates_args=())
def unstable(x: torch.Tensor) -> torch.Tensor:
    unstable.calls += 1
    return torch.nextafter(x, x + 1) if unstable.calls % 4 < 2 else x.clone()


unstable.calls = 0
unstable.register_autograd(lambda context, gradient: gradient)


def nondeterministic(seed):
    workload = plain(seed)
    workload.loss = lambda model, batch: loss(model, unstable(batch))
    return workload


def finite(seed):
    workload = plain(seed)
    workload.batches = list(itertools.islice(workload.batches, 3))
    return workload


def not_a_number(seed):
    workload = plain(seed)
    count = itertools.count()
    workload.loss = lambda model, batch: loss(model, batch) * (
        float("nan") if next(count) >= 1 else 1.0
    )
    return workload


def raising(seed):
    workload = plain(seed)

    def step(workload, batch):
        raise ZeroDivisionError("the user's bug")

    workload.step = step
    return workload


def leaving(seed):
    workload = plain(seed)
    count = itertools.count()

    def step(workload, batch):
        if next(count) == 1:
            sys.exit(0)
        return workload.loss(workload.model, batch)

    workload.step = step
    return workload


def a_float(seed):
    workload = plain(seed)
    workload.step = lambda workload, batch: 0.5
    return workload


def writing(seed):
    os.write(1, b"written to the descriptor\\n")
    return plain(seed)


def interrupted(seed):
    workload = plain(seed)
    count = itertools.count()

    def step(workload, batch):
        if next(count) == 20:
            raise KeyboardInterrupt
        return workload.loss(workload.model, batch)

    workload.step = step
    return workload


def without_parameters(seed):
    batches = itertools.repeat(torch.ones(3))
    return Workload(torch.nn.Identity(), None, batches, lambda model, batch: model(batch).mean())


def not_a_workload(seed):
    return 3
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory with `work.py` in it, made the current one."""
    (tmp_path / "work.py").write_text(WORKLOADS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def call(user: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run `nondet-probe` with these arguments in the user's directory, in this process.

    A process of its own each time would spend most of the suite importing torch; test_docs.py and
    test_process.py start real ones.
    """

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["nondet-probe", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return Done(int(left.value.code or 0), out, err)

    return run
