"""Three ordinary training scripts, each with one thing made different: `diff` must name it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.probe.differ import diff_traces
from nondet_probe.records.difference import TraceDifference
from nondet_probe.records.trace_reader import open_trace
from nondet_probe.report.difference_limits import notes
from nondet_probe.report.difference_words import difference_verdict

PROGRAMS = Path(__file__).parents[1] / "probe" / "programs"
FORKED = Path(__file__).with_name("forked_records.py")

GPT, RESNET, GRAPH = "gpt_stdlib.py", "resnet_digits.py", "graph_network.py"
RACING = ["--gather", "index", "--threads", "2", "--neighbours", "30"]

# Name -> level, program, arguments. The first of a group is what the others are compared with.
RECORDED: dict[str, tuple[str, str, list[str]]] = {
    "gpt": ("op", GPT, []),
    "gpt again": ("op", GPT, []),
    "gpt lr": ("op", GPT, ["--plant", "lr"]),
    "gpt dropout": ("op", GPT, ["--plant", "dropout"]),
    "gpt order": ("op", GPT, ["--plant", "order"]),
    "gpt threads": ("op", GPT, ["--plant", "threads"]),
    "gpt moment": ("op", GPT, ["--plant", "moment"]),
    "modules": ("module", GPT, ["--folder", "text"]),
    "modules initial": ("module", GPT, ["--folder", "text", "--plant", "initial"]),
    "modules moment": ("module", GPT, ["--folder", "text", "--plant", "moment"]),
    "modules text": ("module", GPT, ["--folder", "other text"]),
    "resnet": ("module", RESNET, []),
    "resnet worker": ("module", RESNET, ["--plant", "worker"]),
    "resnet unseeded": ("module", RESNET, ["--plant", "unseeded"]),
    "resnet buffer": ("module", RESNET, ["--plant", "buffer"]),
    "resnet order": ("step", RESNET, ["--plant", "order"]),
    "graph": ("op", GRAPH, []),
    "graph lr": ("op", GRAPH, ["--plant", "lr", "--at", "0"]),
    "graph flag": ("op", GRAPH, ["--plant", "flag"]),
    "racing": ("op", GRAPH, RACING),
    "racing again": ("op", GRAPH, RACING),
}


def environment() -> dict[str, str]:
    # The package as this test has it, also where it is not installed.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all of them were recorded."""
    folder = tmp_path_factory.mktemp("programs")
    source = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:20]
    for name in ("text", "other text"):
        (folder / name).mkdir()
    for path in source:
        text = path.read_bytes()
        (folder / "text" / path.name).write_bytes(text)
        # All of it: which samples are drawn in two steps is another matter.
        (folder / "other text" / path.name).write_bytes(text.swapcase())
    told = [
        (
            name,
            ["--level", level],
            [str(PROGRAMS / program), "--steps", "2", *(["--at", "1"] if plant else []), *plant],
        )
        for name, (level, program, plant) in RECORDED.items()
    ]
    done = subprocess.run(
        [sys.executable, str(FORKED), json.dumps(told)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    codes = json.loads(done.stdout)
    failed = {name: (folder / f"{name}.log").read_text() for name, code in codes.items() if code}
    assert not failed
    return folder


Compared = Callable[[str, str], TraceDifference]


@pytest.fixture
def compared(runs: Path) -> Compared:
    return lambda a, b: diff_traces(open_trace(runs / a), open_trace(runs / b))


def line_of(program: str, text: str) -> int:
    """The number of the line in which this stands."""
    lines = (PROGRAMS / program).read_text().splitlines()
    (found,) = (number for number, line in enumerate(lines, 1) if text in line)
    return found


def test_a_run_and_itself_again(compared: Compared) -> None:
    assert compared("gpt", "gpt again").equal


# What is compared: kind, step, phase, and words of the verdict.
PLANTED = {
    ("gpt", "gpt lr"): (
        "optimizer",
        1,
        "optimizer",
        "the lr of optimizer 0, group 0 differs (0.0005 and 0.0005000005), and no record before",
    ),
    ("gpt", "gpt dropout"): (
        "rng",
        1,
        "forward",
        "random generator torch cpu is in another state as aten.bernoulli_.float draws from it",
    ),
    ("gpt", "gpt order"): (
        "rng",
        -1,
        "setup",
        "the generator given to aten.random_ is in another state",
    ),
    ("gpt", "gpt threads"): (
        "environment",
        -1,
        "setup",
        "a switch was set in run a alone (torch.get_num_threads: 2 -> 1)",
    ),
    ("gpt", "gpt moment"): ("input", 1, "optimizer", "received other inputs"),
    ("modules", "modules initial"): (
        "input",
        0,
        "setup",
        "the initial weights differ, those of GPT2LMHeadModel.transformer.h.0.attn.c_attn.weight",
    ),
    ("modules", "modules moment"): ("optimizer", 1, "state", "ln_2.bias"),
    ("modules", "modules text"): (
        "batch",
        0,
        "data",
        "the batch of loader 0 holds other data, although its samples have the same indices",
    ),
    ("resnet", "resnet worker"): (
        "rng",
        1,
        "data",
        "random generator numpy of worker 1 of loader 0 is in another state, although the seed of "
        "that worker is the same: its worker_init_fn set it otherwise",
    ),
    ("resnet", "resnet unseeded"): (
        "rng",
        0,
        "data",
        "random generator numpy of worker 0 of loader 0 is in another state, although the seed of ",
    ),
    ("resnet", "resnet buffer"): (
        "buffer",
        1,
        "setup",
        "buffer ResNet.blocks.1.norm2.running_mean differs",
    ),
    ("resnet", "resnet order"): ("rng", 0, "data", "the generator of loader 0 is in another state"),
    ("graph", "graph lr"): (
        "optimizer",
        0,
        "optimizer",
        "the lr of optimizer 0, group 0 differs",
    ),
    ("graph", "graph flag"): (
        "environment",
        -1,
        "setup",
        "a switch was set in run b alone (torch.use_deterministic_algorithms: False -> True)",
    ),
}


@pytest.mark.parametrize("runs_of", PLANTED, ids=" and ".join)
def test_what_is_planted_is_named(compared: Compared, runs_of: tuple[str, str]) -> None:
    found = compared(*runs_of)
    kind, step, phase, words = PLANTED[runs_of]
    verdict = difference_verdict(found)
    assert (found.kind, found.step, found.phase) == (kind, step, phase), verdict
    assert words in verdict
    record = found.roots[0].a or found.roots[0].b
    assert record is not None
    if runs_of == ("gpt", "gpt order"):
        assert found.line == line_of(GPT, "for step, batch in zip")
    if runs_of == ("gpt", "gpt dropout"):
        assert found.module == "GPT2LMHeadModel.transformer.drop"
    if runs_of == ("gpt", "gpt moment"):
        assert found.line == line_of(GPT, "optimizer.step()")
        assert any("through NumPy" in text for text in found.warnings)


def test_what_a_coarse_level_leaves_open_says_how_to_go_on(compared: Compared) -> None:
    told = notes(compared("modules", "modules moment"))
    assert told[-1].startswith("Next: record both runs with --level op --steps 1 to see which op")
    told = notes(compared("modules", "modules initial"))
    assert not any(text.startswith("Next:") for text in told)


@pytest.fixture
def real(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A command whose own processes find the package as this test has it."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    return call


def test_the_gradient_of_an_index_races_and_the_replay_says_why(
    runs: Path, real: Callable[..., Any]
) -> None:
    done = real("diff", str(runs / "racing"), str(runs / "racing again"), "--replay", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["kind"], found["phase"], found["inputs_equal"]) == ("op", "backward", True)
    assert found["op"] == "aten.index_put.default"
    assert found["line"] == line_of(GRAPH, "sent = sent[source]")
    assert found["module"].startswith("GraphNetwork.layers.")
    assert found["cause"]["text"].startswith("parallel float atomics at two or more threads")
    verified = [fix["how"] for fix in found["cause"]["tried"] if fix["verified"]]
    assert "torch.use_deterministic_algorithms(True)" in verified
    assert " removes it (verified: 0 of 20 differ" in found["verdict"]


def test_an_audit_finds_the_op_that_races_and_the_switch(real: Callable[..., Any]) -> None:
    script = [str(PROGRAMS / GRAPH), *RACING, "--width", "16"]
    done = real("audit", "--json", "--steps", "1", "--threads", "2", "--", *script)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    rows = {row["op"]: row for row in found["record"]["audit"]["ops"]}
    racing = {name for name, row in rows.items() if row["differing"]}
    assert racing == {"aten.index_put.default"}
    assert rows["aten.index_put.default"]["switch"] == "deterministic mode"
