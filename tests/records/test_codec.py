"""JSON round trips: what is stored comes back, what does not fit is refused by name."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from nondet_probe.errors import RecordError
from nondet_probe.records.codec import decode, encode


@dataclass
class Inner:
    value: float
    pair: tuple[float, float] | None = None


@dataclass
class Outer:
    name: str
    count: int
    inner: list[Inner] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)


def example() -> Outer:
    return Outer(
        "a",
        3,
        [Inner(0.1), Inner(-0.0, (math.inf, -math.inf))],
        {"x": 1},
        {"nested": [1, None, {"deep": math.inf}]},
    )


def test_round_trip_through_json_text() -> None:
    text = json.dumps(encode(example()), allow_nan=False)
    back = decode(Outer, json.loads(text))
    assert back == example()
    assert math.copysign(1, back.inner[1].value) == -1


def test_nan_survives() -> None:
    text = json.dumps(encode(Inner(math.nan)), allow_nan=False)
    assert math.isnan(decode(Inner, json.loads(text)).value)


def test_plain_json_would_refuse_what_we_store() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json.dumps(math.nan, allow_nan=False)


def test_numpy_scalars_are_stored_as_plain_numbers() -> None:
    assert encode({"n": np.int64(3), "x": np.float64(0.5)}) == {"n": 3, "x": 0.5}


def test_unstorable_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot store a set"):
        encode({"x": {1, 2}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "record: Outer has no field extra"),
        ({"count": "three"}, "record.count: a str where int is due"),
        ({"count": True}, "record.count: a bool where int is due"),
        ({"inner": [{"value": 1.0, "pair": [1.0]}]}, r"record.inner\[0\].pair: 1 items where 2"),
        ({"inner": 3}, "record.inner: a int where"),
        ({"inner": [3]}, r"record.inner\[0\]: a int where Inner is due"),
        ({"table": {"x": 1.5}}, "record.table.x: a float where int is due"),
    ],
)
def test_wrong_shape_is_named(change: dict[str, Any], message: str) -> None:
    data = {**encode(example()), **change}
    with pytest.raises(RecordError, match=message):
        decode(Outer, data)


def test_missing_field_is_named() -> None:
    data = encode(example())
    del data["count"]
    with pytest.raises(RecordError, match="field count of Outer is missing"):
        decode(Outer, data)
