"""A script runs until its optimizer has stepped often enough; how it ends is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from nondet_probe.probe.script_steps import Ending, run_steps

TRAIN = """
import sys
import torch

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
other = torch.optim.SGD(model.parameters(), lr=0.1)
done = []
try:
    for step in range(5):
        model(torch.ones(2)).sum().backward()
        other.step() if step else None
        optimizer.step()
        done.append(step)
        if "raise" in sys.argv:
            raise ZeroDivisionError("the user's bug")
        if "interrupt" in sys.argv:
            raise KeyboardInterrupt
        if "leave" in sys.argv:
            sys.exit(7)
        if "say" in sys.argv:
            sys.exit("no data")
        if "done" in sys.argv:
            sys.exit(0)
except BaseException as error:
    if "stubborn" not in sys.argv:
        raise
    optimizer.step()
finally:
    print("done", done, __name__)
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    return script


def test_it_is_stopped_in_the_hook_of_the_last_step(
    train: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    optimizers: set[torch.optim.Optimizer] = set()

    def after(steps: int, optimizer: torch.optim.Optimizer) -> bool:
        seen.append(steps)
        optimizers.add(optimizer)
        return True

    ending = run_steps([str(train)], module=False, steps=3, after_step=after)
    assert ending == Ending(3, None)
    # Steps are the first optimizer's, though the other one steps in between.
    assert seen == [1, 2, 3]
    assert len(optimizers) == 1
    assert capsys.readouterr().out == "done [0, 1] __main__\n"
    # The hook is gone.
    torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1).step()
    assert seen == [1, 2, 3]


def test_the_caller_may_stop_it(train: Path) -> None:
    assert run_steps([str(train)], module=False, after_step=lambda n, o: n < 2).steps == 2


def test_a_script_that_catches_everything_meets_it_again(
    train: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_steps([str(train), "stubborn"], module=False, steps=2) == Ending(2, None)
    assert capsys.readouterr().out == "done [0] __main__\n"


@pytest.mark.parametrize(
    ("word", "failure", "told"),
    [
        ("raise", "the script raised ZeroDivisionError: the user's bug after 1 optimizer step",
         "Traceback"),
        ("leave", "the script left with exit code 7 after 1 optimizer step", ""),
        ("say", "the script left with exit code 1 after 1 optimizer step", "no data"),
        ("interrupt", "interrupted after 1 optimizer step", ""),
        ("done", None, ""),
    ],
)  # fmt: skip
def test_other_ends(
    train: Path, capsys: pytest.CaptureFixture[str], word: str, failure: str | None, told: str
) -> None:
    ending = run_steps([str(train), word], module=False, steps=9)
    assert (ending.steps, ending.failure) == (1, failure)
    assert told in capsys.readouterr().err
    assert bool(ending.caveats(9)) == (failure is None)


def test_a_module_that_ends_by_itself(train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(train.parent)
    ending = run_steps(["train"], module=True, steps=9)
    assert ending == Ending(5, None)
    assert ending.caveats(9) == [
        "the script ended by itself after 5 of 9 optimizer steps; all of it was watched"
    ]
    assert ending.caveats(5) == []
