"""Models with their data, for a probe to run on: two built in, and the way to a user's own."""

from __future__ import annotations

from nondet_probe.workloads.targets import BUILTIN, load_target

__all__ = ["BUILTIN", "load_target"]
