"""The README cannot drift: its commands run, its Python runs, every subcommand is in it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nondet_probe.cli.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
# These need a network or are the suite itself.
EXCEPTED = ("git clone", "cd ", "make ")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Of each console block the lines after its `$ ` prompts that can run here."""
    found = []
    for block in blocks(text, "console"):
        lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        typed = [line.partition("  #")[0].strip() for line in lines]
        kept = [command for command in typed if not command.startswith(EXCEPTED)]
        if kept:
            found.append(kept)
    return found


def test_blocks_and_commands_are_found() -> None:
    text = "```console\n$ make demo\n$ a b  # why\nout\n```\n```python\nx = 1\n```\n"
    assert commands(text) == [["a b"]]
    assert blocks(text, "python") == ["x = 1\n"]


def test_the_readme_has_commands() -> None:
    assert len(commands(README)) >= 3


@pytest.mark.parametrize("typed", commands(README), ids=lambda typed: typed[0])
def test_readme_commands_run(typed: list[str], tmp_path: Path) -> None:
    """Those of one block in order: what one leaves, the next may read."""
    # Beside the examples, as a reader in the checkout is, but not in it: a run leaves a directory.
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for command in typed:
        program, *arguments = shlex.split(command)
        assert program == "nondet-probe"
        done = subprocess.run(
            [sys.executable, "-m", "nondet_probe", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1), done.stderr
    assert done.stdout


def test_readme_python_runs(tmp_path: Path) -> None:
    examples = blocks(README, "python")
    assert examples
    for number, example in enumerate(examples):
        (tmp_path / f"example{number}.py").write_text(example)
        subprocess.run([sys.executable, f"example{number}.py"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    "name", [command.callback.__name__ for command in app.registered_commands if command.callback]
)
def test_every_subcommand_is_in_the_readme(name: str) -> None:
    assert f"nondet-probe {name}" in README


def dead_links(page: Path) -> list[str]:
    """Links to files of this repository that are not there."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
    return [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda path: path.name
)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("[a](missing.md) [b](https://example.org)")
    assert dead_links(tmp_path / "x.md") == ["missing.md"]
