"""A comparison as plain JSON types, as docs/diff.md describes it."""

from __future__ import annotations

from typing import Any

from nondet_probe.records.codec import encode
from nondet_probe.records.difference import Root, TraceDifference
from nondet_probe.records.state_difference import StateDifference
from nondet_probe.records.trace import TraceRecord, Words
from nondet_probe.report.difference_limits import limits
from nondet_probe.report.difference_words import difference_verdict, root_count
from nondet_probe.report.states import state_limits, states_verdict

__all__ = ["difference_json", "record_json", "states_json"]

_TOLD_OTHERWISE = frozenset(
    {"roots", "more_roots", "not_aligned_a", "not_aligned_b", "coverage_a", "coverage_b"}
    | {"meta_a", "meta_b"}
)


def difference_json(difference: TraceDifference) -> dict[str, Any]:
    """What is compared, what differs first and where, and all that a report shows."""
    return {
        "verdict": difference_verdict(difference),
        **{
            name: encode(value)
            for name, value in vars(difference).items()
            if name not in _TOLD_OTHERWISE
        },
        "root_count": root_count(difference),
        "roots": [_root(root) for root in difference.roots],
        "not_aligned": {
            "a": encode(difference.not_aligned_a),
            "b": encode(difference.not_aligned_b),
        },
        "coverage": {"a": encode(difference.coverage_a), "b": encode(difference.coverage_b)},
        "runs": {"a": encode(difference.meta_a), "b": encode(difference.meta_b)},
        "limits": limits(difference),
    }


def _root(root: Root) -> dict[str, Any]:
    return {
        "a": record_json(root.a) if root.a is not None else None,
        "b": record_json(root.b) if root.b is not None else None,
        "inputs_equal": root.inputs_equal,
        "inferred": root.inferred,
    }


def record_json(record: TraceRecord) -> dict[str, Any]:
    """One record with its site; digests as the 32 hex digits that `nondet_probe.digest` gives."""
    found = {
        "number": record.number,
        "step": record.step,
        **record.site._asdict(),
        "inputs": _hex(record.inputs),
        "outputs": _hex(record.outputs),
        "value": record.value,
    }
    encoded: dict[str, Any] = encode(found)
    return encoded


def _hex(words: Words | None) -> str | None:
    if words is None:
        return None
    return "".join(f"{word & 0xFFFF_FFFF_FFFF_FFFF:016x}" for word in words)


def states_json(found: StateDifference) -> dict[str, Any]:
    """The same for two files of state."""
    body: dict[str, Any] = encode(found)
    return {
        "verdict": states_verdict(found),
        "equal": found.equal,
        **body,
        "limits": state_limits(found),
    }
