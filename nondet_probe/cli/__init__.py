"""The command line `nondet-probe`: parsing and wiring only."""

from nondet_probe.cli.entry import main

__all__ = ["main"]
