"""What the tables of an audit and of a cost say, cell by cell."""

from __future__ import annotations

import report_examples as examples

from nondet_probe.report.audittables import (
    classes_of,
    op_classes,
    op_summary,
    remarkable,
    settings,
)
from nondet_probe.report.costtables import dearest, fill_phrase, fill_share
from nondet_probe.report.tables import cost as cost_table


def test_settings_say_what_is_wrong_in_a_second_line() -> None:
    audit = examples.CASES["audited_unmet"].audit
    assert audit is not None
    (row,) = settings(audit).rows
    assert row[:2] == ["OMP_NUM_THREADS", "4"]
    assert row[2].splitlines()[1].startswith("OMP_NUM_THREADS was set too late")


def test_each_way_to_depend_has_its_column() -> None:
    record = examples.CASES["audited_nondeterministic"]
    differing, other, failed = op_classes(classes_of(record)).rows
    assert differing[1:] == [
        "differs\nin 7 of 20 executions", "not applicable", "not applicable", "not tested",
        "deterministic on request", "deterministic mode",
    ]  # fmt: skip
    assert other[6] == "none found"
    assert failed[2] == "not known\nRuntimeError: planted"
    moving, steady = op_classes(classes_of(examples.CASES["audited"])).rows
    assert moving[2] == "changes\nwith 1"
    assert moving[6] == "none found"
    assert steady[1:4] == ["same\nin 4 executions", "same", "row 0 changes"]
    assert steady[4:] == ["is not read", "nothing", "none needed"]


def test_the_summary_counts_classes_and_leaves_out_what_is_steady() -> None:
    rows = [
        examples.status(), examples.status(op="aten.mm.default", with_batch=True),
        examples.status(op="aten.mm.default"),
        examples.status(op="aten.mm.default", unwritten=True),
    ]  # fmt: skip
    assert op_summary(rows).rows == [["aten.mm.default", "3", "", "", "1", "1", ""]]
    assert len(remarkable(rows)) == 2


def test_a_swept_rerun_has_the_same_table() -> None:
    assert len(classes_of(examples.CASES["swept"])) == 2
    assert classes_of(examples.CASES["only_rerun"]) == []


def test_the_five_dearest_ops_and_the_rest() -> None:
    record = examples.CASES["priced"].cost
    assert record is not None
    table = dearest(record)
    assert table.columns == ["Op", "default", "deterministic"]
    assert len(table.rows) == 7
    assert table.rows[0] == ["aten.op0.default\n1 call a step", "0 µs", "2.00 ms"]
    assert table.rows[5][0] == "the 2 other ops"
    assert table.rows[6] == ["all ops", "21.0 ms", "14.0 ms"]
    assert dearest(examples.cost()).rows == []
    assert len(cost_table(record).rows) == 3


def test_the_fill_in_words() -> None:
    record = examples.CASES["priced"].cost
    assert record is not None
    share = fill_share(record)
    assert share is not None
    assert 0.02 < share < 0.12
    told = fill_phrase(record)
    assert told.startswith("Filling new memory takes ")
    assert told.endswith(
        "It is not needed: with three contents of new memory the bits were the same."
    )
    assert fill_phrase(examples.cost()) == ""
    unknown = examples.cost(fill_reason="not tested", arms=[])
    assert fill_phrase(unknown) == "Whether it is needed is not known: not tested."
