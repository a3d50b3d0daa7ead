from __future__ import annotations

import offences
import pytest
import torch

from nondet_probe.probe.places import Place
from nondet_probe.probe.plan import plan_of
from nondet_probe.probe.replay import Call, Difference
from nondet_probe.probe.rerun import Rerun
from nondet_probe.probe.tally import Tally

HERE = Place("forward", "layer", __file__, 1)


def call(size: int) -> Call:
    op = torch.ops.aten.neg.default
    return Call(op, plan_of(op), (torch.ones(size),), {})


def test_the_worst_call_of_a_place_is_kept() -> None:
    tally = Tally()
    tally.add(HERE, 3, [], call(9))
    tally.add(HERE, 3, [Difference(5, 1, 7)], call(5))
    tally.add(HERE, 3, [Difference(4, 2, None), Difference(4, 4, 2)], call(4))
    tally.add(HERE, 3, [Difference(6, 3, 1)] * 2, call(6))
    (site,) = tally.differing()
    record = site.record()
    assert (record.calls, record.differing_calls) == (4, 3)
    assert (record.executions, record.differing) == (12, 5)
    assert (record.elements, record.different_elements, record.max_ulp) == (4, 4, 7)
    assert record.shapes == ["float32[4]"]
    assert site.worst is not None
    assert site.worst.shapes == ["float32[4]"]
    assert record.code == "from __future__ import annotations"


def test_places_and_ops_are_told_apart_worst_first() -> None:
    tally = Tally()
    there = HERE._replace(line=2)
    tally.add(HERE, 4, [Difference(9, 1, 1)], call(9))
    tally.add(there, 4, [Difference(9, 1, 1)] * 2, call(9))
    tally.add(HERE._replace(phase="backward"), 4, [], call(9))
    tally.add(HERE._replace(module=None), 4, [Difference(9, 5, 1)], call(9))
    order = [(site.place.line, site.place.module) for site in tally.differing()]
    assert order == [(2, "layer"), (1, None), (1, "layer")]
    assert tally.ops() == {"aten.neg.default"}


def test_operands_beyond_the_memory_set_aside_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nondet_probe.probe.tally._KEPT_BYTES", 40)
    with Rerun(2) as watch:
        offences.wobble(torch.ones(10))  # 40 bytes: kept
        offences.wobble_(torch.ones(1))  # no room is left
    record = watch.record()
    fixes = {site.op: bool(site.fixes) for site in record.sites}
    assert fixes == {"ndp_test.wobble.default": True, "ndp_test.wobble_.default": False}
    assert any(
        caveat.startswith("no fix was tried on ndp_test.wobble_.default: the operands")
        for caveat in record.caveats
    )
