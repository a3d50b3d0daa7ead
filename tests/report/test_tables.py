import pytest
import report_examples as examples

from nondet_probe.records import Coverage, Fix
from nondet_probe.report import tables


def column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


@pytest.mark.parametrize("case", examples.CASES)
def test_every_row_has_a_printable_cell_for_every_column(case):
    record = examples.CASES[case]
    shown = [*tables.summary(record), tables.facts(record)]
    assert all(table.rows for table in shown)
    if record.rerun is not None:
        shown.append(tables.coverage(record.rerun.coverage))
        if record.rerun.sites:
            shown.append(tables.fixes(record.rerun))
    shown += [tables.twin(run) for run in (record.twin, record.twin_fixed) if run is not None]
    if record.rerun is not None or record.twin is not None:
        shown.append(tables.overhead(record))
    for table in shown:
        assert table.title
        for row in table.rows:
            assert len(row) == len(table.columns)
            assert all(isinstance(cell, str) for cell in row)
            text = "".join(row).replace("\n", "")
            # The separator of thousands is a space of its own kind.
            assert text.replace("\u202f", "").isprintable()


def test_ops_name_the_source_line_and_its_code():
    table = tables.ops(examples.NONDETERMINISTIC.rerun)
    assert column(table, "Op") == ["aten.index_put_.default\nbackward, in table"]
    assert column(table, "Source line") == [
        "nondet_probe/workloads/snippets_hashed.py:88\n"
        "rows = self.table[buckets] * weights[:, None]"
    ]
    assert column(table, "Executions that differed") == ["8 of 10\nin 2 of 2 calls"]
    assert column(table, "Largest difference")[0].startswith("1834 ulps\nin 41\u202f873 of 2\u202f")
    assert column(table, "Fix") == [
        "deterministic mode\nverified, 2.84x the op's time\n2 others tried"
    ]


@pytest.mark.parametrize(
    ("module", "text"),
    [(None, "outside of any module"), ("", "in the model itself"), ("a.b", "in a.b")],
)
def test_ops_tell_the_model_from_outside_of_it(module, text):
    rerun = examples.rerun(sites=[examples.site(module=module)])
    assert tables.ops(rerun).rows[0][0].endswith(f"backward, {text}")


def test_fixes_tell_verified_from_no_help_from_not_tried():
    fixes = [
        Fix("a", "how a", True, 5, 2.0, (1.9, 2.1)),
        Fix("b", "how b", False, 5, 1.0),
        Fix("c", "how c", False, error="no such kernel"),
    ]
    rerun = examples.rerun(sites=[examples.site(fixes=fixes)])
    table = tables.fixes(rerun)
    assert column(table, "Verified") == [
        "yes\n5 executions alike",
        "no\n5 executions, still not alike",
        "could not be tried\nno such kernel",
    ]
    assert column(table, "Fix, and how to apply it")[0] == "a\nhow a"
    assert column(table, "Time of the op") == ["2.00x\n1.90x to 2.10x", "1.00x", "not measured"]
    only_bad = examples.rerun(sites=[examples.site(fixes=fixes[1:])])
    assert column(tables.ops(only_bad), "Fix") == ["none found\n2 tried"]


def test_cost_keeps_the_error_of_an_arm():
    table = tables.cost(examples.STRANGE.cost)
    assert column(table, "Time ratio") == ["reference", "not measured"]
    assert column(table, "Median step") == ["100 ms", "none"]
    assert column(table, "Steps timed") == ["3", "0\nno"]


def test_coverage_lists_what_was_not_covered_most_first():
    table = tables.coverage(Coverage(20, 10, 3, 1, {"a": 1, "b": 5}))
    assert [row[0] for row in table.rows[-2:]] == ["not covered: b", "not covered: a"]
    assert tables.coverage(Coverage(1, 1)).rows[-1] == ["not covered", "0"]


def test_twin_answers_every_question():
    answers = dict(tables.twin(examples.CLEAN.twin).rows)
    assert answers["what was changed"] == (
        "features.0.weight, element 137\nbit 0 of its float32: 0xbd1c27f3 to 0xbd1c27f2"
    )
    assert "95% interval 0.251 to 0.273" in answers["growth rate"]
    assert answers["accuracy"] == "0.9417 in the run, 0.9389 in the twin"
    assert answers["half of all parameters' elements differ"] == "after step 19"
    growthless = dict(tables.twin(examples.NO_GROWTH.twin).rows)
    assert growthless["what became of the bit"] == "no growth rate\nfewer than four steps to fit"


def test_a_step_of_one_ulp_is_no_bit():
    change = examples.HOSTILE_RUN.twin.change
    assert change.bit is None
    assert "by one ulp of its" in tables.twin(examples.HOSTILE_RUN.twin).rows[0][1]


def test_overhead_is_a_ratio_to_the_same_steps():
    table = tables.overhead(examples.NONDETERMINISTIC)
    assert column(table, "Ratio") == ["4.60x", "2.96x", "2.96x"]
    free = examples.run(rerun=examples.rerun(plain_seconds=0.0))
    assert column(tables.overhead(free), "Ratio") == ["not measured"]


def test_environment_takes_whatever_it_is_given():
    table = tables.environment(
        {
            "a": {"b": {"c": 1.5, "empty": {}}, "list": [], "items": ["x", 2]},
            "off": False,
            "n": None,
        }
    )
    assert table.rows == [
        ["a: b: c", "1.50000"],
        ["a: b: empty", "none set"],
        ["a: list", "none"],
        ["a: items", "x, 2"],
        ["off", "no"],
        ["n", "none"],
    ]


def test_summary_shows_what_there_is():
    titles = [table.title for table in tables.summary(examples.NONDETERMINISTIC)]
    assert titles == ["Key figures", "Nondeterministic ops", "Cost of determinism, 2 threads"]
    (figures,) = tables.summary(examples.ONLY_RERUN)
    assert figures.rows[0][0] == "Nondeterministic places"
    assert tables.summary(examples.NOTHING) == []
