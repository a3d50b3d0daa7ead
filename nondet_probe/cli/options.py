"""Arguments and options that several commands share, and those that need many words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Against",
    "AgainstJson",
    "AgainstPage",
    "Inject",
    "IsModule",
    "Json",
    "K",
    "Level",
    "Memory",
    "Names",
    "OtherSide",
    "Out",
    "OutputsOnly",
    "Page",
    "RecordOut",
    "Replay",
    "Script",
    "ScriptIsModule",
    "Seed",
    "Side",
    "Sketch",
    "Steps",
    "Sweep",
    "Target",
    "Targets",
    "Threads",
    "UnderReproducible",
    "Variables",
]

_TARGET_HELP = (
    "A built-in workload (digits-cnn, digits-mlp, snippets-hashed), package.module:function, or "
    "path/to/file.py:function, where the function takes a seed and returns a Workload."
)
_SIDE_HELP = (
    "A trace (the folder that nondet-probe record wrote), or a file of state: .safetensors, or "
    ".pt, .pth, .bin of torch.save with tensors and plain values only."
)

Target = Annotated[str, typer.Argument(help=_TARGET_HELP, metavar="TARGET", show_default=False)]
Seed = Annotated[int, typer.Option(help="Seed given to the workload and to every random stream.")]
Targets = Annotated[
    list[str],
    typer.Argument(
        help=_TARGET_HELP + " Or a training script, unchanged, with its arguments after --.",
        metavar="TARGET | -- SCRIPT [ARGS]...",
        show_default=False,
    ),
]
IsModule = Annotated[
    bool, typer.Option("-m", help="Run a module as the script: -m -- package.module [ARGS].")
]
K = Annotated[
    int | None,
    typer.Option(
        "--k",
        help="Executions of each op, the original included; default: 2, and 20 of what is suspect.",
        show_default=False,
    ),
]
Memory = Annotated[
    int | None,
    typer.Option(
        help="MiB that executing one op again may take; beyond it a call is not covered. "
        "Default: 4096.",
        show_default=False,
    ),
]
Sweep = Annotated[
    bool,
    typer.Option(
        "--sweep",
        help="Also ask of each op whether its bits change with the threads, the batch, and what "
        "new memory holds.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="torch's CPU threads; races between threads show from 2 up."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Run directory; default: runs/<time>-<command>-<target>."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, alone, on stdout.")]
Page = Annotated[
    Path | None, typer.Option(help="Write a page to look at; an existing file is kept.")
]
Script = Annotated[
    list[str], typer.Argument(help="A script and its arguments.", metavar="SCRIPT [ARGS]...")
]
ScriptIsModule = Annotated[
    bool, typer.Option("-m", help="SCRIPT is the name of a module: package.module.")
]
Side = Annotated[Path, typer.Argument(help=_SIDE_HELP, metavar="A", show_default=False)]
OtherSide = Annotated[Path, typer.Argument(help="Another one.", metavar="B", show_default=False)]
Replay = Annotated[
    bool,
    typer.Option(
        "--replay",
        help="Run A's command again up to the first root, execute its op again, try fixes, and "
        "keep its tensors below runs/.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Set this environment variable for the second run of each pair; repeatable.",
        show_default=False,
    ),
]
UnderReproducible = Annotated[
    bool,
    typer.Option(
        "--reproducible",
        help="All copies inside nondet_probe.reproducible, for a run that does not repeat.",
    ),
]
RecordOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="A new folder; default: runs/<time>-record-<script>."),
]
Level = Annotated[str, typer.Option(help="step, module or op, coarsest first.")]
OutputsOnly = Annotated[
    bool, typer.Option("--outputs-only", help="At level op: no digests of what ops are given.")
]
Steps = Annotated[str | None, typer.Option(help="Only these steps, counted from 0: 120-121, or 7.")]
Sketch = Annotated[
    bool, typer.Option("--sketch", help="Also a sketch of all parameters a step, for drift.")
]
Inject = Annotated[
    Path | None,
    typer.Option(help="A fault file: the one bit that is changed meanwhile.", metavar="FAULT"),
]
Names = Annotated[
    str | None,
    typer.Option(help="Only modules and parameters whose path this regular expression finds."),
]
Against = Annotated[
    Path | None,
    typer.Option(
        help="A trace of the same level: compare with it while recording, and stop the script "
        "at the first difference.",
        metavar="RUN",
    ),
]
AgainstPage = Annotated[
    Path | None, typer.Option(help="With --against: write a page of what was found.")
]
AgainstJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="With --against: what was found as JSON, alone on stdout; the script's output "
        "goes to stderr.",
    ),
]
