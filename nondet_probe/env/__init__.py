"""Read, set and restore the state of the process: switches, threads, random streams, versions.

Names are loaded on first use: a script is started by a module of this room, and must find a process
into which torch has not been imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nondet_probe.env.rng import RngState as RngState
    from nondet_probe.env.rng import preserved_rng as preserved_rng
    from nondet_probe.env.rng import seed_all as seed_all
    from nondet_probe.env.switches import deterministic_algorithms as deterministic_algorithms
    from nondet_probe.env.switches import read_switches as read_switches
    from nondet_probe.env.switches import thread_count as thread_count
    from nondet_probe.env.world import available_cpus as available_cpus
    from nondet_probe.env.world import snapshot as snapshot

_HOMES = {
    "RngState": "nondet_probe.env.rng",
    "available_cpus": "nondet_probe.env.world",
    "deterministic_algorithms": "nondet_probe.env.switches",
    "preserved_rng": "nondet_probe.env.rng",
    "read_switches": "nondet_probe.env.switches",
    "seed_all": "nondet_probe.env.rng",
    "snapshot": "nondet_probe.env.world",
    "thread_count": "nondet_probe.env.switches",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nondet_probe.env' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
