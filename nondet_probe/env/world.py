"""What the world looked like: machine, versions, switches as found, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from nondet_probe.env.switches import read_switches

__all__ = ["available_cpus", "snapshot"]

_PACKAGES = ("nondet-probe", "torch", "numpy", "scipy", "scikit-learn", "triton", "transformers")


def snapshot() -> dict[str, Any]:
    """Machine, versions, switches and commit of the working directory, ready for JSON."""
    return {
        "machine": _machine(),
        "versions": _versions(),
        "switches": read_switches(),
        "commit": _commit(Path.cwd()),
    }


def available_cpus() -> int:
    """CPUs this process may run on (its affinity where the system tells, else all)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine() -> dict[str, Any]:
    gpus = []
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpus": available_cpus(),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    # The running torch wins over what the metadata of the environment says.
    found["torch"] = str(torch.__version__)
    return found


def _commit(directory: Path) -> dict[str, Any] | None:
    """Commit and state of the git checkout that holds `directory`; None outside of one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        return {"id": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
