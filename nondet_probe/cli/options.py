"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "SIDE_HELP",
    "IsModule",
    "Json",
    "K",
    "Memory",
    "Out",
    "Seed",
    "Target",
    "Targets",
    "Threads",
]

_TARGET_HELP = (
    "A built-in workload (digits-cnn, snippets-hashed), package.module:function, or "
    "path/to/file.py:function, where the function takes a seed and returns a Workload."
)
SIDE_HELP = (
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
Threads = Annotated[
    int | None,
    typer.Option(help="torch's CPU threads; races between threads show from 2 up."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Run directory; default: runs/<time>-<command>-<target>."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, alone, on stdout.")]
