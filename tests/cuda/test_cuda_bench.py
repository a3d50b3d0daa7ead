"""The price list of a GPU: every provider runs, or says why not, and no promise is broken."""

from __future__ import annotations

import pytest
import torch

from nondet_probe.metrics import MEASURES
from nondet_probe.ops import ops, variants
from nondet_probe.probe.meters import ON_GPU, CudaMeter, meter_of
from nondet_probe.probe.pricelist import Request, price_list
from nondet_probe.records.figures import Row
from nondet_probe.records.prices import STREAM, TIME, TORCH, broken_promises

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("op", ops())
def test_every_op_has_its_prices(op: str) -> None:
    request = Request([op], [100_000], [torch.float32], [ON_GPU], 5, "cuda")
    rows = [row for some in price_list(request, MEASURES) for row in some]
    assert not broken_promises(rows)
    assert {row.threads for row in rows} == {ON_GPU}
    timed = {row.provider for row in rows if row.metric == TIME and row.spread is not None}
    reasons = {row.provider: row.note for row in rows if row.metric == TIME and not row.spread}
    assert timed, reasons
    for variant in variants(op):
        assert variant.name in timed or reasons[variant.name] in (
            "has no kernel in CUDA",
            "measured up to n = 50000 only, since it is slow",
        )
    assert TORCH in timed or op == "histogram"  # which torch has on the CPU alone


def rate(rows: list[Row], provider: str) -> float:
    (row,) = [one for one in rows if (one.provider, one.metric) == (provider, "rate")]
    assert row.spread is not None
    return row.spread.median


def test_large_inputs_come_from_memory() -> None:
    """Nothing that reads its input once is faster than memory: twice the rate of a copy would be
    the cache."""
    request = Request(["sum"], [10_000_000], [torch.float32], [ON_GPU], 5, "cuda")
    rows = [row for some in price_list(request, MEASURES) for row in some if row.op == "sum"]
    assert rate(rows, TORCH) < 1.5 * rate(rows, STREAM)


def test_the_cache_is_cold_for_every_call() -> None:
    """A small input that was read just now takes as long as one that was not."""
    meter = meter_of("cuda")
    assert isinstance(meter, CudaMeter)
    x = torch.zeros(8 << 20, device=meter.device)
    times = sorted(meter.seconds(x.sum) for _ in range(21))
    gigabytes = x.nbytes / 1e9
    copy, moved = meter.stream((torch.zeros(256 << 20, device=meter.device),), ON_GPU)
    fastest = min(meter.seconds(copy) for _ in range(11))
    assert gigabytes / times[10] < 1.5 * moved / 1e9 / fastest
