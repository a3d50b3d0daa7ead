"""Ways to train or predict with less variability, on the user's own model."""

from __future__ import annotations

from nondet_probe.mitigate.account import Account
from nondet_probe.mitigate.reproducible import reproducible

__all__ = ["Account", "reproducible"]
