"""Read, set and restore the state of the process: switches, threads, random streams, versions."""

from nondet_probe.env.rng import RngState, preserved_rng, seed_all
from nondet_probe.env.snapshot import available_cpus, snapshot
from nondet_probe.env.switches import deterministic_algorithms, read_switches, thread_count

__all__ = [
    "RngState",
    "available_cpus",
    "deterministic_algorithms",
    "preserved_rng",
    "read_switches",
    "seed_all",
    "snapshot",
    "thread_count",
]
