import pytest
import report_examples as examples

from nondet_probe.records import RerunRecord
from nondet_probe.report.explain import ARMS, GLOSSARY, SECTIONS, comparison, words_used


def said(**changes: object) -> str:
    record: RerunRecord = examples.rerun(**changes)
    return " ".join(comparison(record))


def test_comparison_says_that_no_digest_was_involved():
    assert "No digest was involved" in said()


@pytest.mark.parametrize(("k", "odds"), [(2, "once in 2;"), (5, "once in 16;"), (11, "in 1024;")])
def test_odds_of_missing_a_fair_coin(k, odds):
    assert odds in said(k=k)


def test_odds_of_a_huge_k_are_a_power_of_ten():
    assert "once in about 10³⁰;" in said(k=101)


def test_neutrality_in_its_three_cases():
    assert "ended with the same bits" in said(neutral=True)
    assert "do not rely on this report" in said(neutral=False)
    assert "cannot be told here" in said(neutral=None, sites=[examples.site()])
    assert "cannot be told here" not in said(neutral=None)


def test_one_thread_is_said_once():
    assert said(threads=1).count("one") == 1
    given = said(threads=1, caveats=["with one thread races between threads cannot show"])
    assert given.count("With one thread races") == 1
    assert "had one CPU thread" not in given


def test_caveats_are_kept():
    assert "A strange caveat." in said(caveats=["a strange caveat."])


def test_glossary_holds_what_the_record_needs():
    assert set(words_used(examples.CLEAN)) == set(GLOSSARY)
    assert set(words_used(examples.NOTHING)) == {"step"}
    assert "twin" not in words_used(examples.ONLY_RERUN)
    assert "ulp" in words_used(examples.ONLY_TWIN)


def test_explanations_are_sentences():
    assert all(text.endswith(".") for text in SECTIONS.values())
    assert not any(text.endswith(".") for text in [*GLOSSARY.values(), *ARMS.values()])
