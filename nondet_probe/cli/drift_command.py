"""The command `drift` and its options; torch is imported when it runs, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nondet_probe.cli.options import Json, Page

__all__ = ["drift"]


def drift(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Traces of nondet-probe record --sketch; the others are compared with the first.",
            metavar="RUN",
            show_default=False,
        ),
    ],
    html: Page = None,
    as_json: Json = False,
) -> None:
    """How far apart recorded runs are, step by step, from sketches of their parameters.

    Exit codes: 0 no distance, 1 a distance was seen, 2 they cannot be compared.
    """
    # Only here: it imports torch.
    from nondet_probe.cli.drift import drift as run

    run(runs, html, as_json)
