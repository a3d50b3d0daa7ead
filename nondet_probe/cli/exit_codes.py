"""What an exit code of `nondet-probe` means."""

__all__ = ["CLEAN", "FAILED", "FOUND", "HELP", "USAGE"]

CLEAN = 0
FOUND = 1
USAGE = 2
FAILED = 3

HELP = (
    "Exit codes: 0 clean or equal, 1 nondeterminism or a difference found, 2 usage, "
    "3 the run failed (its record so far is kept)."
)
