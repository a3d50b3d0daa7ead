import math

import pytest

from nondet_probe.bits import ULP_MAX
from nondet_probe.report import spell


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1.00"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (999.6, "1\u202f000".replace("\u202f", "")),
        (123456.7, "123\u202f457"),
        (0.00123, "0.00123"),
        (0.000123, "1.23\u00d710⁻⁴"),
        (-4.2e-12, "-4.20\u00d710⁻¹²"),
        (6.02e23, "6.02\u00d710²³"),
        (math.nan, "NaN"),
        (math.inf, "infinite"),
        (-math.inf, "-infinite"),
        (None, "none"),
    ],
)
def test_number_has_three_significant_digits(value, text):
    assert spell.number(value) == text


def test_counts_are_grouped_from_five_digits_on():
    assert spell.count(1797) == "1797"
    assert spell.count(2_097_152) == "2\u202f097\u202f152"
    assert spell.count(-12345) == "-12\u202f345"


def test_plural():
    assert spell.plural(1, "step") == "1 step"
    assert spell.plural(0, "step") == "0 steps"
    assert spell.plural(2, "fix", "fixes") == "2 fixes"


def test_ulps():
    assert spell.ulps(None) == "not in ulps"
    assert spell.ulps(1) == "1 ulp"
    assert spell.ulps(12345) == "12\u202f345 ulps"
    assert spell.ulps(2**31) == "2.15\u00d710⁹ ulps"
    assert spell.ulps(ULP_MAX) == "beyond counting"
    assert spell.ulps(ULP_MAX - 1) != "beyond counting"


def test_ratio():
    assert [spell.ratio(v) for v in (1.234, 12.34, 1234.5, None, math.nan, math.inf)] == [
        "1.23x",
        "12.3x",
        "1234x",
        "not measured",
        "not measured",
        "infinite",
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.123, "12.3%"),
        (0.99999, "more than 99.9%"),
        (1e-7, "1.00\u00d710⁻⁵%"),
        (math.nan, "unknown"),
        (None, "unknown"),
    ],
)
def test_percent_never_rounds_to_none_or_all(share, text):
    assert spell.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 µs"),
        (12.3e-6, "12.3 µs"),
        (0.00456, "4.56 ms"),
        (4.56, "4.56 s"),
        (125.0, "2 min 5 s"),
        (math.nan, "not measured"),
        (None, "not measured"),
    ],
)
def test_seconds(value, text):
    assert spell.seconds(value) == text


def test_listing():
    assert [spell.listing(list(items)) for items in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_printable_escapes_what_would_garble_reorder_or_not_encode():
    text = spell.printable("a\x1b[31m\u202eb\ud800\u0000 c\n漢 é")
    assert text == "a\\x1b[31m\\u202eb\\ud800\\x00 c\n漢 é"
    text.encode()


def test_one_line_and_clip():
    assert spell.one_line("a\n  b.\n") == "a b"
    assert len(spell.one_line("x" * 500, 100)) == 100
    assert spell.clip("abcdefghij", 5) == "ab…ij"
    assert spell.clip("abc", 5) == "abc"


def test_dotted_names_keep_their_numbers_and_their_end():
    name = "model.layers.12.self_attn.q_proj.weight"
    assert spell.dotted(name, 22) == "m.l.12.s.q_proj.weight"
    assert spell.dotted(name, 100) == name
    assert len(spell.dotted("x" * 80 + ".weight", 22)) <= 22


def test_op_and_place():
    assert spell.short_op("aten.index_put_.default") == "index_put_"
    assert spell.short_op("aten.add.Tensor") == "add.Tensor"
    assert spell.short_op("mylib.op.default") == "mylib.op"
    assert spell.place("/home/a/b/c.py", 7) == "c.py:7"
    assert spell.place("/home/a/b/c.py", 7, parts=3) == "a/b/c.py:7"
    assert spell.place("c.py", None) == "c.py"
    assert spell.place(None, 3) == "an unknown line"
