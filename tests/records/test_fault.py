"""A fault file may come from anybody: nothing in it is taken without being looked at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.bits import BitChange
from nondet_probe.errors import UsageError
from nondet_probe.records.codec import decode, encode
from nondet_probe.records.fault import MOMENTS, SITES, Fault, Injection, load_fault, save_fault

FAULTS = [
    Fault("weight", "conv1.weight", index=17, bit=0),
    Fault("bias", "*.bias", seed=3, number=2**40, bit=31, step=9, when="after backward"),
    Fault("gradient", None, seed=2**64 - 1, change="ulp down", when="after backward"),
    Fault("weight", seed=5, change="paper_stem"),
    Fault("output", "", index=0, change="ulp up"),
    Fault("rng", "torch cpu", index=623, bit=31, step=2**40),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_survives_its_file(fault: Fault, tmp_path: Path) -> None:
    save_fault(fault, tmp_path / "fault.json")
    assert load_fault(tmp_path / "fault.json") == fault
    assert decode(Fault, json.loads(json.dumps(encode(fault)))) == fault


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    given = {"site": "weight", "name": "w", "index": 1, "bit": 2}
    document = {"format": "nondet_probe.fault", "version": 1, "fault": given}
    (tmp_path / "fault.json").write_text(json.dumps(document))
    assert load_fault(tmp_path / "fault.json") == Fault(
        "weight", "w", 1, None, 0, "bit", 2, 0, "before forward"
    )


def test_every_site_has_a_moment() -> None:
    assert {Fault(site, "x", index=0, bit=0).when for site in SITES} <= set(MOMENTS)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="nothing is ever overwritten"):
        save_fault(FAULTS[0], tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
    with pytest.raises(UsageError, match="cannot be written"):
        save_fault(FAULTS[0], tmp_path / "no" / "fault.json")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"site": "weigth"}, "unknown site 'weigth'; did you mean 'weight'"),
        ({"site": 3}, "unknown site '3'"),
        ({"site": ["weight"]}, "unknown site"),
        ({"step": -1}, "step=-1: a whole number from 0 to"),
        ({"step": True}, "step=True"),
        ({"step": 1.0}, r"step=1\.0"),
        ({"step": "1"}, "step='1'"),
        ({"step": 2**53}, "step="),
        ({"when": "before backwards"}, "unknown when 'before backwards'; did you mean 'before ba"),
        ({"site": "input", "when": "after forward"}, "site 'input' is there before forward only"),
        ({"site": "batch", "when": "before data"}, "is there after data only"),
        ({"name": 3}, "name=3: a text is needed"),
        ({"index": None}, "either index .* or seed .* neither is given"),
        ({"seed": 1}, "not both"),
        ({"index": -1}, "index=-1"),
        ({"index": 2**63}, "index="),
        ({"index": None, "seed": -1}, "seed=-1"),
        ({"index": None, "seed": 2**64}, "seed="),
        ({"number": 1}, "number=1: of draws by seed, and index is given"),
        ({"change": "bits"}, "unknown change 'bits'; did you mean 'bit'"),
        ({"bit": None}, "bit is missing"),
        ({"bit": 64}, "bit=64"),
        ({"bit": -1}, "bit=-1"),
        ({"bit": False}, "bit=False"),
        ({"change": "ulp up"}, "bit=0: with change 'ulp up' no bit is chosen"),
        ({"change": "paper_stem", "bit": None}, "'paper_stem' draws with a seed of its own"),
        ({"sight": "weight"}, "unknown field of a fault 'sight'; did you mean 'site'"),
    ],
)
def test_what_no_training_can_have_is_refused(
    changed: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    fault = {"site": "weight", "name": "w", "index": 0, "bit": 0, **changed}
    document = {"format": "nondet_probe.fault", "version": 1, "fault": fault}
    path = tmp_path / "fault.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=reason) as error:
        load_fault(path)
    assert str(path) in str(error.value)
    if "sight" not in changed:
        with pytest.raises(UsageError, match=reason):
            Fault(**fault)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b"[" * 200_000, "is no JSON"),
        (b"[]", "is not of format"),
        (b'{"format": "nondet_probe.trace"}', "is not of format"),
        (b'{"format": "nondet_probe.fault", "version": 2}', "has version 2; .* reads 1"),
        (b'{"format": "nondet_probe.fault", "version": true}', "has version True"),
        (b'{"format": "nondet_probe.fault"}', "has version None"),
        (b'{"format": "nondet_probe.fault", "version": 1}', "fault: an object is needed"),
        (b'{"format": "nondet_probe.fault", "version": 1, "fault": {}}', "site is missing"),
        (
            b'{"format": "nondet_probe.fault", "version": 1, "fault": [], "faults": 1}',
            "unknown field 'faults'; did you mean 'fault'",
        ),
        (
            b'{"format": "nondet_probe.fault", "version": 1, "fault": {"site": "rng", "site": 1}}',
            "given twice",
        ),
        (b" " * (1 << 20) + b"1", "has more than 1048576 bytes"),
    ],
)
def test_what_is_no_fault_file_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "fault.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        load_fault(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_fault(tmp_path / "fault.json")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load_fault(tmp_path)


def test_an_injection_is_told_in_one_sentence() -> None:
    fault = Fault("weight", "*.weight", seed=1, bit=4, step=3)
    assert str(Injection(fault)) == (
        "a fault was asked for and nothing was changed: bit 4 of weight *.weight (drawn by seed 1, "
        "number 0), step 3, before forward"
    )
    change = BitChange("a.weight", 7, 4, "float32", "0x00000000", "0x00000010")
    assert str(Injection(fault, change)) == (
        "a fault was injected at step 3, before forward: bit 4 of weight a.weight[7], float32, "
        "0x00000000 -> 0x00000010"
    )


def test_the_example_of_the_documentation_is_a_fault(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "inject.md").read_text("utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "fault.json").write_text(example)
    assert load_fault(tmp_path / "fault.json") == Fault(
        "gradient", "conv1.weight", 17, bit=0, step=100
    )
    for site, when in SITES.items():
        assert re.search(rf"^\| `{site}` \|.*\| `{when}`", page, re.MULTILINE), site
