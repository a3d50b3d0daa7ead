"""Which op, which line, which bit made two training runs differ, and what determinism costs.

    import nondet_probe as ndp

    record = ndp.checkup(my_workload)       # rerun, twin and cost of one workload

Names are loaded on first use, so that `import nondet_probe` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nondet_probe.bits import BitChange as BitChange
    from nondet_probe.bits import Digest as Digest
    from nondet_probe.bits import bit_equal as bit_equal
    from nondet_probe.bits import count_different as count_different
    from nondet_probe.bits import flip_bit as flip_bit
    from nondet_probe.bits import step_ulp as step_ulp
    from nondet_probe.bits import ulp_distance as ulp_distance
    from nondet_probe.bits.compare import compare as compare
    from nondet_probe.bits.digest import digest as digest
    from nondet_probe.errors import DifferenceError as DifferenceError
    from nondet_probe.errors import NondetProbeError as NondetProbeError
    from nondet_probe.errors import RecordError as RecordError
    from nondet_probe.errors import RunFailedError as RunFailedError
    from nondet_probe.errors import UnknownNameError as UnknownNameError
    from nondet_probe.errors import UsageError as UsageError
    from nondet_probe.mitigate.reproducible import reproducible as reproducible
    from nondet_probe.probe.audit import audit as audit
    from nondet_probe.probe.checkup import checkup as checkup
    from nondet_probe.probe.cost import cost as cost
    from nondet_probe.probe.inject.alone import inject as inject
    from nondet_probe.probe.recorder.recording import record as record
    from nondet_probe.probe.rerun import Rerun as Rerun
    from nondet_probe.probe.rerun import rerun as rerun
    from nondet_probe.probe.twin import twin as twin
    from nondet_probe.records import load_run as load_run
    from nondet_probe.records import save_run as save_run
    from nondet_probe.records.fault import Fault as Fault
    from nondet_probe.records.fault import load_fault as load_fault
    from nondet_probe.records.fault import save_fault as save_fault
    from nondet_probe.report import verdict as verdict
    from nondet_probe.report import write_report as write_report
    from nondet_probe.workload import Workload as Workload

__version__ = "0.1.0"

_HOMES = {
    "BitChange": "nondet_probe.bits",
    "Digest": "nondet_probe.bits",
    "bit_equal": "nondet_probe.bits",
    "compare": "nondet_probe.bits",
    "count_different": "nondet_probe.bits",
    "digest": "nondet_probe.bits",
    "flip_bit": "nondet_probe.bits",
    "step_ulp": "nondet_probe.bits",
    "ulp_distance": "nondet_probe.bits",
    "DifferenceError": "nondet_probe.errors",
    "NondetProbeError": "nondet_probe.errors",
    "RecordError": "nondet_probe.errors",
    "RunFailedError": "nondet_probe.errors",
    "UnknownNameError": "nondet_probe.errors",
    "UsageError": "nondet_probe.errors",
    "reproducible": "nondet_probe.mitigate.reproducible",
    "audit": "nondet_probe.probe.audit",
    "checkup": "nondet_probe.probe.checkup",
    "cost": "nondet_probe.probe.cost",
    "inject": "nondet_probe.probe.inject.alone",
    "record": "nondet_probe.probe.recorder.recording",
    "Rerun": "nondet_probe.probe.rerun",
    "rerun": "nondet_probe.probe.rerun",
    "twin": "nondet_probe.probe.twin",
    "load_run": "nondet_probe.records",
    "save_run": "nondet_probe.records",
    "Fault": "nondet_probe.records.fault",
    "load_fault": "nondet_probe.records.fault",
    "save_fault": "nondet_probe.records.fault",
    "verdict": "nondet_probe.report",
    "write_report": "nondet_probe.report",
    "Workload": "nondet_probe.workload",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nondet_probe' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
