"""Tests on a GPU: the mark `gpu`, and what --require-gpu makes of one that is skipped.

A test with the mark is skipped, with the reason, where there is no GPU or no kernels for it. With
--require-gpu that is a failure, for whatever reason it is skipped; only where a test asks for
several devices and there are fewer is it not, since one GPU is all that is required.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-gpu",
        action="store_true",
        help="a test on a GPU that is skipped is a failure",
    )


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
