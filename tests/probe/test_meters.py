"""Meters: which device gets which, and that the price list goes by what its meter says. The CUDA
one is seen here with a CUDA that only notes what is asked of it; on a GPU by tests/cuda."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from planted_op import PROMISES, plant
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.metrics import MEASURES
from nondet_probe.ops import Guarantee, Variant, registry
from nondet_probe.probe import meters, pricelist
from nondet_probe.probe.cases import CASES, Case
from nondet_probe.probe.meters import ON_GPU, CpuMeter, CudaMeter, meter_of
from nondet_probe.probe.pricelist import Request, price_list
from nondet_probe.probe.providers import Provider, providers
from nondet_probe.records.figures import Row

CUDA = torch.device("cuda", 0)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a CUDA that is not there was asked to do; its events are 3 ms apart."""
    told: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            told.append("record")

        def synchronize(self) -> None:
            told.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 3.0

    zeros = torch.zeros

    def buffer(n: int, *, dtype: torch.dtype, device: torch.device) -> object:
        assert device.type == "cuda"
        told.append(f"buffer of {zeros(n, dtype=dtype, device='meta').nbytes >> 20} MiB")
        return SimpleNamespace(sum=lambda: told.append("flush"))

    monkeypatch.setattr(torch, "zeros", buffer)
    for name, value in {
        "Event": Event,
        "get_device_name": lambda _: "A GPU",
        "get_device_properties": lambda _: SimpleNamespace(L2_cache_size=128 << 20),
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: 1,
        "mem_get_info": lambda _: (10**9, 2 * 10**9),
        "device": lambda _: contextlib.nullcontext(),
        "synchronize": lambda *_: told.append("wait for all"),
        "reset_peak_memory_stats": lambda _: told.append("reset"),
        "memory_allocated": lambda _: 100,
        "max_memory_allocated": lambda _: 175,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(meters.kernels, "why_not", lambda: None)
    return told


def test_a_call_on_cuda_is_timed_by_events_with_a_cold_cache(noted: list[str]) -> None:
    meter = CudaMeter(CUDA)
    assert meter.seconds(lambda: noted.append("call")) == 0.003
    assert noted == ["buffer of 512 MiB", "flush", "record", "call", "record", "wait"]
    assert meter.calls_a_sample(1e-9) == 1
    assert meter.name == "cuda:0 (A GPU)"


def test_memory_of_cuda(noted: list[str]) -> None:
    meter = CudaMeter(CUDA)
    assert meter.extra_bytes(lambda: 25) == 50
    assert meter.free_bytes() == 10**9


def test_a_gpu_has_no_threads(noted: list[str]) -> None:
    meter = CudaMeter(CUDA)
    with meter.set_up(ON_GPU):
        pass
    assert noted[-1] == "wait for all"
    with pytest.raises(UsageError, match="threads 2: they are the CPU's"), meter.set_up(2):
        pass


def test_streams_say_what_they_move(noted: list[str]) -> None:
    inputs = (torch.ones(3), torch.ones(5, dtype=torch.float64))
    read, moved = CpuMeter().stream(inputs, 1)
    assert (read(), moved) == ((), 52)
    copy, moved = CudaMeter(CUDA).stream(inputs, ON_GPU)
    assert (copy(), moved) == ((), 104)


def test_devices_and_their_meters(noted: list[str]) -> None:
    assert isinstance(meter_of("cpu"), CpuMeter)
    assert meter_of("cuda").device == torch.device("cuda", 1)
    assert meter_of("cuda:0").device == CUDA
    with pytest.raises(UsageError, match="there are 2 CUDA devices"):
        meter_of("cuda:2")
    with pytest.raises(UsageError, match="taken are cpu"):
        meter_of("cuda:")


def test_without_kernels_nothing_is_measured(
    noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters.kernels, "why_not", lambda: "no kernels here")
    with pytest.raises(UsageError, match="'cuda' cannot be measured: no kernels here"):
        meter_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch sees no CUDA device"):
        meter_of("cuda")


class Counted(CpuMeter):
    """Calls a GPU's what runs on the CPU, and gives each call a microsecond."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "cuda:0 (A GPU)"
        self.calls = 0

    @contextlib.contextmanager
    def set_up(self, threads: int) -> Iterator[None]:
        assert threads == ON_GPU
        yield

    def seconds(self, call: Callable[[], object]) -> float:
        self.calls += 1
        call()
        return 1e-6

    def calls_a_sample(self, seconds: float) -> int:
        return 1

    def stream(self, inputs: tuple[Tensor, ...], threads: int) -> tuple[Callable[[], object], int]:
        return tuple, 2 * sum(tensor.nbytes for tensor in inputs)

    def extra_bytes(self, call: Callable[[], int]) -> int:
        return 7


def test_the_price_list_goes_by_its_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    counted = Counted()
    monkeypatch.setattr(pricelist, "meter_of", lambda _: counted)
    told: list[str] = []
    request = Request(["planted"], [64], [torch.float32], [ON_GPU], 3, "cuda")
    rows = [
        row for some in price_list(request, MEASURES, lambda *what: told.append(what[0]))
        for row in some
    ]  # fmt: skip
    assert told[0] == "planted float32 n=64, cuda:0 (A GPU)"
    # All variants but the three that cannot be measured, torch, and the read stream.
    # Each is tried once, warmed up twice and measured three times.
    assert counted.calls == (len(PROMISES) - 3 + 2) * (1 + 2 + 3)

    def figure(provider: str, metric: str) -> Row:
        (row,) = [one for one in rows if (one.provider, one.metric) == (provider, metric)]
        return row

    assert {row.threads for row in rows} == {ON_GPU}
    for metric, value in {"time": 1e-6, "extra memory": 7, "share of read stream": 1.0}.items():
        spread = figure("exact", metric).spread
        assert spread is not None
        assert spread.median == value
    stream = figure("read stream", "rate").spread
    assert stream is not None
    assert abs(stream.median - 512 / 1e9 / 1e-6) < 1e-9


def test_threads_are_refused_elsewhere_than_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricelist, "meter_of", lambda _: Counted())
    with pytest.raises(UsageError, match="threads 2: they are the CPU's, not of cuda"):
        Request(["sum"], [10], [torch.float32], [2], 2, "cuda")


def found(case: Case, device: str) -> dict[str, Provider]:
    inputs = case.make(64, torch.float32)
    return {
        one.name: one for one in providers(case, inputs, 64, torch.float32, torch.device(device))
    }


def test_providers_on_a_gpu() -> None:
    on_cpu, on_gpu = found(CASES["sum"][0], "cpu"), found(CASES["sum"][0], "cuda")
    assert list(on_cpu) == list(on_gpu)  # sum is not in Triton
    assert not any(one.why_not for one in on_cpu.values())
    without = {name for name, one in on_gpu.items() if one.why_not == "has no kernel in CUDA"}
    assert without == {"kahan", "pairwise"}

    attention = found(CASES["attention"][0], "cuda")
    assert attention["fixed_order"].why_not == "has no kernel in CUDA"
    assert {"triton split_buffers", "triton semaphore_ordered", "triton atomic"} < set(attention)
    assert attention["triton atomic"].guarantee is Guarantee.NONE

    matmul = found(CASES["matmul"][0], "cuda")
    assert matmul["splitk_ordered"].why_not == ""
    assert matmul["triton splitk_ordered"].guarantee is Guarantee.RUN_TO_RUN
    assert "triton exact" not in matmul


def test_a_variant_that_only_the_registry_has_is_not_called_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "planted"
    late = Variant(
        "matmul", "late", Guarantee.NONE, False, False, text, text, text, (torch.float32,), text
    )
    monkeypatch.setitem(registry._VARIANTS["matmul"], "late", late)
    assert found(CASES["matmul"][0], "cuda")["late"].why_not == "has no kernel in CUDA"


def test_a_backend_can_be_named() -> None:
    case = CASES["matmul"][0]
    inputs = case.make(64, torch.float32)
    (named,), (plain,) = case.ours("exact", inputs, "cpu"), case.ours("exact", inputs)
    assert torch.equal(named, plain)
    with pytest.raises((TypeError, UsageError), match="backend 'triton'"):
        case.ours("fixed_split", inputs, "triton")
