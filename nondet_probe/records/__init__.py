"""The shape of stored truth: schema, codec, store."""

from nondet_probe.records.audit import OpStatus, Setting
from nondet_probe.records.measured import Fate, MeasuredTensor, Predictions
from nondet_probe.records.schema import (
    AuditRecord,
    CostArm,
    CostRecord,
    Coverage,
    Fix,
    Growth,
    OpCost,
    OpSite,
    RerunRecord,
    RunRecord,
    TwinRecord,
)
from nondet_probe.records.store import load_run, save_run, to_json

__all__ = [
    "AuditRecord",
    "CostArm",
    "CostRecord",
    "Coverage",
    "Fate",
    "Fix",
    "Growth",
    "MeasuredTensor",
    "OpCost",
    "OpSite",
    "OpStatus",
    "Predictions",
    "RerunRecord",
    "RunRecord",
    "Setting",
    "TwinRecord",
    "load_run",
    "save_run",
    "to_json",
]
