"""The rows of an audit's tables, and of the sweeps of a rerun."""

from __future__ import annotations

from collections.abc import Sequence

from nondet_probe.records import AuditRecord, OpStatus, RunRecord
from nondet_probe.report.spell import clip, count, one_line, plural, printable
from nondet_probe.report.tables import Table

__all__ = ["classes_of", "op_classes", "op_summary", "remarkable", "settings"]


def classes_of(record: RunRecord) -> list[OpStatus]:
    """The classes of op calls that a record knows of."""
    if record.audit is not None:
        return record.audit.ops
    return record.rerun.classes if record.rerun is not None else []


def settings(audit: AuditRecord) -> Table:
    """What was requested, and what is in force."""
    rows = [
        [
            printable(setting.name),
            one_line(setting.requested),
            one_line(setting.in_force) + (f"\n{one_line(setting.finding)}" * bool(setting.finding)),
        ]
        for setting in audit.settings
    ]
    return Table("Requested and in force", ["Switch", "Requested", "In force"], rows)


def remarkable(classes: Sequence[OpStatus]) -> list[OpStatus]:
    """Those of which there is more to say than that nothing changes their bits."""
    return [
        row
        for row in classes
        if not row.repeatable or row.other_threads or row.with_batch or row.unwritten
        or row.declared or row.error
    ]  # fmt: skip


def op_summary(classes: Sequence[OpStatus]) -> Table:
    """For a terminal: one row an op, with how many of its classes are remarkable in which way."""
    by_op: dict[str, list[OpStatus]] = {}
    for row in classes:
        by_op.setdefault(row.op, []).append(row)
    rows = [
        [
            printable(op),
            str(len(group)),
            *(
                str(number) if number else ""
                for number in (
                    sum(not row.repeatable for row in group),
                    sum(bool(row.other_threads) for row in group),
                    sum(bool(row.with_batch) for row in group),
                    sum(bool(row.unwritten) for row in group),
                )
            ),
            "\n".join(dict.fromkeys(one_line(row.switch) for row in group if row.switch)),
        ]
        for op, group in by_op.items()
        if remarkable(group)
    ]
    columns = [
        "Op", "Classes", "Not repeatable", "Change with threads", "With the batch",
        "Read unwritten", "Switch, verified",
    ]  # fmt: skip
    return Table("What bits depend on: classes of calls", columns, rows, frozenset({0}))


def op_classes(classes: Sequence[OpStatus], title: str = "What bits depend on, op by op") -> Table:
    """One row a class of calls; how it holds up from run to run, and with what else it changes."""
    rows = [
        [
            f"{printable(row.op)}\n{clip(row.shapes, 120)}, {plural(row.calls, 'call')}",
            _runs(row),
            _threads(row),
            _batch(row),
            _memory(row),
            row.declared or "nothing",
            one_line(row.switch)
            if row.switch
            else "none found"
            if _wanting(row)
            else "none needed",
        ]
        for row in classes
    ]
    columns = [
        "Op", "From run to run", "With threads", "With the batch", "Unwritten memory",
        "PyTorch says", "Switch, verified",
    ]  # fmt: skip
    return Table(title, columns, rows, frozenset({0}))


def _wanting(row: OpStatus) -> bool:
    return not row.repeatable or bool(row.other_threads)


def _runs(row: OpStatus) -> str:
    if row.repeatable:
        return f"same\nin {plural(row.executions, 'execution')}"
    return f"differs\nin {count(row.differing)} of {plural(row.executions, 'execution')}"


def _threads(row: OpStatus) -> str:
    if row.error is not None:
        return f"not known\n{one_line(row.error)}"
    if row.other_threads is None:
        return "not applicable"
    if not row.other_threads:
        return "same"
    return f"changes\nwith {', '.join(map(str, row.other_threads))}"


def _batch(row: OpStatus) -> str:
    if row.with_batch is None:
        return "not applicable"
    return "row 0 changes" if row.with_batch else "row 0 stays"


def _memory(row: OpStatus) -> str:
    if row.unwritten is None:
        return "not tested"
    return "is read" if row.unwritten else "is not read"
