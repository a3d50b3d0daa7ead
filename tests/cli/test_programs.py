"""Three ordinary training scripts, each with one thing made different, which must be named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from races import struck

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


# A program that makes one thing different where a variable says so: for the second runs of bisect.
PLANTED_LATER = """
import os, runpy, sys
sys.argv = sys.argv[1:]
if "PLANT" in os.environ:
    sys.argv += ["--plant", os.environ["PLANT"]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LATER = ["--", "planted.py"]

# Name -> the words of a command.
COMMANDS: dict[str, list[str]] = {
    "bisect graph": ["bisect", "--", GRAPH, *RACING, "--width", "16", "--steps", "2"],
    "bisect resnet": [
        *("bisect", "--env-b", "PLANT=buffer"),
        *(*LATER, RESNET, "--steps", "3", "--at", "1"),
    ],
    "bisect gpt": [
        *("bisect", "--env-b", "PLANT=dropout"),
        *(*LATER, GPT, "--steps", "3", "--at", "1"),
    ],
    **{
        f"audit {name}": ["audit", "--steps", "1", "--", program, "--threads", "2"]
        for name, program in (("graph", GRAPH), ("resnet", RESNET), ("gpt", GPT))
    },
    **{
        f"cost {name}": ["cost", "--steps", "2", "--", program]
        for name, program in (("graph", GRAPH), ("resnet", RESNET), ("gpt", GPT))
    },
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
    at = ["--steps", "2", "--at", "1"]
    told = {
        name: ["record", "--level", level, "-o", name, "--", program, *at, *plant]
        for name, (level, program, plant) in RECORDED.items()
    }
    out, err = forked(told, folder).communicate()
    failed = {
        name: (folder / f"{name}.log").read_text() for name, code in json.loads(out).items() if code
    }
    assert not failed, err
    return folder


def forked(told: dict[str, list[str]], folder: Path) -> subprocess.Popen[str]:
    """A process that runs these commands one after the other; it prints their exit codes."""
    programs = {program: str(PROGRAMS / program) for program in (GPT, RESNET, GRAPH)}
    words = [(name, [programs.get(word, word) for word in one]) for name, one in told.items()]
    return subprocess.Popen(
        [sys.executable, str(FORKED), json.dumps(words)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Running(NamedTuple):
    """COMMANDS, and the folder they are run in."""

    process: subprocess.Popen[str]
    folder: Path


@pytest.fixture(scope="module", autouse=True)
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """They go on beside the other tests."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "planted.py").write_text(PLANTED_LATER)
    told = {name: [words[0], "--json", *words[1:]] for name, words in COMMANDS.items()}
    with forked(told, folder) as process:
        yield Running(process, folder)
        if process.poll() is None:
            process.kill()


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
    def look() -> dict[str, Any]:
        done = real("diff", str(runs / "racing"), str(runs / "racing again"), "--replay", "--json")
        assert done.returncode == 1, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = struck(look, lambda found: found["cause"]["differing"] or found["cause"]["missing"])
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

    def look() -> tuple[int, dict[str, Any]]:
        done = real("audit", "--json", "--steps", "1", "--threads", "2", "--", *script)
        return done.returncode, json.loads(done.stdout)

    code, found = struck(look, lambda found: found[0] == 1)
    assert code == 1
    rows = {row["op"]: row for row in found["record"]["audit"]["ops"]}
    racing = {name for name, row in rows.items() if row["differing"]}
    assert racing == {"aten.index_put.default"}
    assert rows["aten.index_put.default"]["switch"] == "deterministic mode"


Commanded = Callable[[str], tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def commanded(commands: Running) -> Commanded:
    """The exit code of one of COMMANDS, and what it printed."""
    out, err = commands.process.communicate(timeout=600)
    codes = json.loads(out)

    def of(name: str) -> tuple[int, dict[str, Any]]:
        text = (commands.folder / f"{name}.out").read_text()
        assert text, err + (commands.folder / f"{name}.log").read_text()
        found: dict[str, Any] = json.loads(text)
        return codes[name], found

    return of


# What the search comes to: kind, phase, module, and words of the verdict.
SEARCHED: dict[str, tuple[str, str, str | None, str]] = {
    "bisect graph": (
        "op",
        "backward",
        "GraphNetwork.layers.",
        "aten.index_put received bit-identical inputs and gave different outputs",
    ),
    "bisect resnet": (
        "order",
        "forward",
        None,
        "run b has aten.nextafter where run a has no such record",
    ),
    "bisect gpt": (
        "rng",
        "forward",
        "GPT2LMHeadModel.transformer.drop",
        "random generator torch cpu is in another state as aten.bernoulli_.float draws from it",
    ),
}


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_comes_to_what_is_planted(name: str, commanded: Commanded) -> None:
    kind, phase, module, words = SEARCHED[name]
    code, found = commanded(name)
    assert code == 1
    levels = [rung["level"] for rung in found["ladder"]["rungs"]]
    assert list(dict.fromkeys(levels)) == ["step", "module", "op"]
    assert (found["kind"], found["phase"]) == (kind, phase), found["verdict"]
    assert words in found["verdict"]
    assert found["module"] == module or (module and found["module"].startswith(module))
    if name == "bisect graph":
        assert found["line"] == line_of(GRAPH, "sent = sent[source]")
        # A race before the one that was found may give the op something else in the replay.
        assert found["cause"]["executions"] >= 20 or found["cause"]["missing"]
    else:
        assert found["step"] == 1
    if name == "bisect resnet":
        assert found["line"] == line_of(RESNET, "mean[0] = torch.nextafter")


# What a second thread changes, by the way it is programmed.
BY_THREADS = {
    "resnet": "aten.convolution_backward.default",
    "gpt": "aten.native_layer_norm_backward.default",
    "graph": None,
}
NEVER = {"aten.relu.default", "aten.add.Tensor", "aten.index_add.default", "aten.embedding.default"}


@pytest.mark.parametrize("name", BY_THREADS)
def test_an_audit_finds_what_depends_on_threads_and_no_race(
    name: str, commanded: Commanded
) -> None:
    code, found = commanded(f"audit {name}")
    assert code == 0, found["verdict"]
    rows = found["record"]["audit"]["ops"]
    assert found["verdict"].startswith("No nondeterminism seen in ")
    assert not any(row["differing"] or row["error"] for row in rows)
    changed = {row["op"]: row["switch"] for row in rows if row["other_threads"]}
    assert not NEVER & changed.keys()
    expected = BY_THREADS[name]
    assert expected is None or changed[expected] == "nondet_probe.reproducible"


DEAREST = {
    "graph": "aten.index_add.default",
    "resnet": "aten.convolution_backward.default",
    "gpt": "aten.native_layer_norm_backward.default",
}


@pytest.mark.parametrize("name", DEAREST)
def test_the_cost_of_a_program(name: str, commanded: Commanded) -> None:
    code, found = commanded(f"cost {name}")
    assert code == 0, found["verdict"]
    cost = found["record"]["cost"]
    arms = {arm["name"]: (len(arm["seconds"]), arm["error"]) for arm in cost["arms"]}
    ways = ["default", "deterministic", "deterministic, no fill", "reproducible"]
    assert arms == dict.fromkeys(ways, (2, None))
    ops = {op["op"]: op for op in cost["ops"]}
    assert set(ops[DEAREST[name]]["seconds"]) == set(ways)
    assert cost["fill_needed"] is False
    assert "a step in deterministic mode takes " in found["verdict"]
