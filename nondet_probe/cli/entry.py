"""What `nondet-probe` runs: the command line, and the exit codes of what goes wrong in it."""

from __future__ import annotations

import io
import sys
import traceback

import typer

from nondet_probe.cli import exit_codes
from nondet_probe.cli.app import app
from nondet_probe.errors import UsageError

__all__ = ["main"]


def main() -> None:
    """Entry point: run the command line and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path or a name that the terminal's encoding lacks must not end a finished run.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UsageError as error:
        typer.echo(f"nondet-probe: {error}", err=True)
        sys.exit(exit_codes.USAGE)
    except Exception:
        # Python's own exit code for it, 1, would say that nondeterminism was found.
        traceback.print_exc()
        sys.exit(exit_codes.FAILED)
