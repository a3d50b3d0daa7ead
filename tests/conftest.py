"""What holds for every test: it leaves the process as it was, and it may need a GPU.

A test that leaves another thread count behind, or other global switches of determinism, fails: the
next one would measure something else. Code of torch.compile is dropped after the test that made it,
since a recording says of every step that such code may have run in it.

A test with the mark is skipped, with the reason, where there is no GPU or no kernels for it. With
--require-gpu that is a failure, for whatever reason it is skipped; only where a test asks for
several devices and there are fewer is it not, since one GPU is all that is required.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-gpu",
        action="store_true",
        help="a test on a GPU that is skipped is a failure",
    )


def _switches() -> dict[str, object]:
    torch = sys.modules["torch"]
    return {
        "thread count": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "default dtype": torch.get_default_dtype(),
    }


@pytest.fixture(autouse=True)
def _leaves_the_process_as_it_was() -> Iterator[None]:
    # Some tests are of what imports torch, and are not to find it imported.
    before = _switches() if "torch" in sys.modules else None
    yield
    compiled = sys.modules.get("torch._dynamo.eval_frame")
    if getattr(compiled, "cached_backends", None):
        sys.modules["torch._dynamo"].reset()
    if before is not None:
        assert _switches() == before, "the test leaves other settings than it found"


def pytest_runtest_setup(item: pytest.Item) -> None:
    mark = item.get_closest_marker("gpu")
    if mark is None:
        return
    # Only here: most tests are on the CPU, and conftest is read before any of them.
    import torch

    from nondet_probe.bits import device

    reason = device.why_not() if torch.cuda.is_available() else "torch sees no CUDA device"
    if reason is not None:
        pytest.skip(reason)
    if _devices(mark) > torch.cuda.device_count():
        pytest.skip(f"needs {_devices(mark)} GPUs, there are {torch.cuda.device_count()}")


def _devices(mark: pytest.Mark) -> int:
    devices: int = mark.kwargs.get("devices", 1)
    return devices


def _has_fewer_devices(mark: pytest.Mark) -> bool:
    import torch

    return 0 < torch.cuda.device_count() < _devices(mark)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    mark = item.get_closest_marker("gpu")
    if (
        mark is not None
        and report.skipped
        and item.config.getoption("require_gpu")
        and not _has_fewer_devices(mark)
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"--require-gpu, and this test on a GPU was not run: {reason}"
    return report
