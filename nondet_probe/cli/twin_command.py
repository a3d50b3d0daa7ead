"""The command `twin` and its options; torch is imported when it runs, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nondet_probe.cli.options import Json, Out, Seed, Target, Threads
from nondet_probe.errors import UsageError

__all__ = ["twin"]


def twin(
    target: Target,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 100,
    param: Annotated[
        str | None,
        typer.Option(help="Parameter to change; default: the first with two dimensions or more."),
    ] = None,
    index: Annotated[
        int | None,
        typer.Option(help="Flat index of the element; default: drawn with the seed."),
    ] = None,
    bit: Annotated[int, typer.Option(help="Bit to flip, 0 the least significant.")] = 0,
    twins: Annotated[
        int, typer.Option(help="How many, each with another element; a model copy each.")
    ] = 1,
    inject: Annotated[
        Path | None,
        typer.Option(
            help="A fault file: what is changed and when, in place of --param, --index and --bit.",
            metavar="FAULT",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="Make the change at each of these steps: 0,10,100.",
            metavar="STEPS",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Train copies in lockstep, each one bit of one weight apart, and an unperturbed control."""
    # Only here: these import torch.
    from nondet_probe.cli.session import Session
    from nondet_probe.records.fault import load_fault

    when = _steps(at) if at is not None else None
    fault = load_fault(inject) if inject is not None else None
    session = Session("twin", target, seed, threads, out, as_json)

    def body() -> None:
        from nondet_probe.probe.twin import twin as run

        with session.part("twin"):
            session.record.twin = run(
                session.factory(),
                seed=seed,
                steps=steps,
                name=param,
                index=index,
                bit=bit,
                twins=twins,
                fault=fault,
                at=when,
                progress=session.progress,
            )

    session.run(body)


def _steps(given: str) -> list[int]:
    found = []
    for word in given.split(","):
        try:
            found.append(int(word))
        except ValueError:
            raise UsageError(
                f"--at {given}: {word.strip()!r} is no step; give whole numbers with commas in "
                "between, such as 0,10,100"
            ) from None
    return found
