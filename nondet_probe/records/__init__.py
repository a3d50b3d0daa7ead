"""The shape of stored truth: schema, codec, store."""

from nondet_probe.records.schema import (
    CostArm,
    CostRecord,
    Coverage,
    Fix,
    Growth,
    OpSite,
    RerunRecord,
    RunRecord,
    TwinRecord,
)
from nondet_probe.records.store import load_run, save_run, to_json

__all__ = [
    "CostArm",
    "CostRecord",
    "Coverage",
    "Fix",
    "Growth",
    "OpSite",
    "RerunRecord",
    "RunRecord",
    "TwinRecord",
    "load_run",
    "save_run",
    "to_json",
]
