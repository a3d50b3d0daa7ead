"""The command line `nondet-probe`: parsing and wiring only."""

from nondet_probe.cli.app import main

__all__ = ["main"]
