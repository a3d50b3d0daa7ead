"""The shape of stored truth: schema, codec, store."""

from nondet_probe.records.audit import OpStatus, Setting
from nondet_probe.records.measured import Fate, Growth, MeasuredTensor, Predictions
from nondet_probe.records.schema import (
    AuditRecord,
    CostArm,
    CostRecord,
    Coverage,
    Fix,
    OpCost,
    OpSite,
    RerunRecord,
    RunRecord,
    TwinRecord,
)
from nondet_probe.records.store import load_run, save_run, to_json
from nondet_probe.records.twins import Condition, Followed, Onset

__all__ = [
    "AuditRecord",
    "Condition",
    "CostArm",
    "CostRecord",
    "Coverage",
    "Fate",
    "Fix",
    "Followed",
    "Growth",
    "MeasuredTensor",
    "Onset",
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
