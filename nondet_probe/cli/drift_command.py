"""The command `drift` and its options; torch is imported when it runs, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nondet_probe.cli.options import Json, Page
from nondet_probe.errors import UsageError

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
    against_one_bit: Annotated[
        bool,
        typer.Option(
            "--against-one-bit",
            help="Of two runs: run the first one's command again with one bit changed, some times, "
            "and say whether the runs are as far apart as that makes them.",
        ),
    ] = False,
    twins: Annotated[
        int | None,
        typer.Option(
            help="With --against-one-bit: how many; default: 5. A control is run too.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            help="With --against-one-bit: the step at which their bits are changed; default: the "
            "first at which the runs are apart.",
            metavar="STEP",
            show_default=False,
        ),
    ] = None,
    html: Page = None,
    as_json: Json = False,
) -> None:
    """How far apart recorded runs are, step by step, from sketches of their parameters.

    With --against-one-bit: indistinguishable from one changed bit, or larger, and by which factor.
    Exit codes: 0 no distance, 1 a distance was seen, 2 they cannot be compared, 3 a twin failed.
    """
    if against_one_bit:
        # Only here: it imports torch.
        from nondet_probe.cli.one_bit import against_one_bit as place

        place(runs, twins, at, html, as_json)
    for name, value in (("--twins", twins), ("--at", at)):
        if value is not None:
            raise UsageError(f"{name} {value}: is of --against-one-bit, which is not given")
    # Only here: it imports torch.
    from nondet_probe.cli.drift import drift as run

    run(runs, html, as_json)
