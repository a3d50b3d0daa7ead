"""What a program asked of PyTorch, when, and whether that was in time to be in force."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from nondet_probe.env.switches import environment_at_start, read_switches, stored_variables
from nondet_probe.probe.declared import RAISES
from nondet_probe.records.audit import OpStatus, Setting

__all__ = ["Requests"]

_DETERMINISTIC = "torch.use_deterministic_algorithms"
_THREADS = "torch.get_num_threads"
_BENCHMARK = "torch.backends.cudnn.benchmark"
_PRECISION = "torch.get_float32_matmul_precision"

# When what reads a variable reads it, and never again.
_AT_TORCH = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_AT_FIRST_OP = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "NONDET_PROBE_ISA")
_AT_CUDA = ("CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE")


class _Change(NamedTuple):
    """A switch seen to have changed. ops: op calls before that; cuda: CUDA was initialised."""

    before: Any
    after: Any
    ops: int
    cuda: bool


class Requests:
    """Follows the switches of a program; made before it begins.

    look: to be called before each op with the number of op calls before it.
    """

    def __init__(self) -> None:
        self._start = environment_at_start()
        self._at_import: dict[str, str] | None = None
        self._now = _read()
        self._first = dict(self._now)
        self._changes: dict[str, list[_Change]] = {}

    def torch_imported(self) -> None:
        """The program comes to its first import of torch, which the audit loaded before."""
        self._at_import = stored_variables(os.environ)

    def look(self, ops: int) -> None:
        now = _read()
        if now == self._now:
            return
        for name in now.keys() | self._now.keys():
            before, after = self._now.get(name), now.get(name)
            if before != after:
                change = _Change(before, after, ops, torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
                self._changes.setdefault(name, []).append(change)
        self._now = now

    def settings(self, seen: int, ops: Sequence[OpStatus]) -> list[Setting]:
        """What was requested and what is in force. seen: op calls in all; ops: what was measured of
        them."""
        self.look(seen)
        cuda = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
        found = [self._deterministic(seen, ops), self._fill(), self._threads()]
        found += [self._cudnn(cuda), self._precision(cuda)]
        for name in sorted({*self._start, *stored_variables(self._now)}):
            found.append(self._variable(name, cuda))
        return found

    def _late(self, name: str) -> _Change | None:
        """The first change of a switch that came after some op."""
        return next((c for c in self._changes.get(name, ()) if c.ops > 0), None)

    def _deterministic(self, seen: int, ops: Sequence[OpStatus]) -> Setting:
        on, warn_only = self._now[_DETERMINISTIC], self._now["warn_only"]
        requested = "not requested" if not on else "on, warn_only" if warn_only else "on"
        late = self._late(_DETERMINISTIC)
        if late is not None:
            was, now = ("off", "on") if late.after else ("on", "off")
            return Setting(
                _DETERMINISTIC,
                requested,
                f"{was} for the first {late.ops} op calls, then {now}",
                f"{_DETERMINISTIC} was switched {now} after {late.ops} of {seen} op calls, which "
                "ran without it"
                if late.after
                else f"{_DETERMINISTIC} was switched off after {late.ops} of {seen} op calls",
            )
        if not on:
            return Setting(_DETERMINISTIC, requested, "off")
        bad = sorted({row.op for row in ops if not row.repeatable})
        refused = sorted({row.op for row in ops if row.declared == RAISES})
        if warn_only and (bad or refused):
            kept = ", ".join(dict.fromkeys(bad + refused))
            return Setting(
                _DETERMINISTIC, requested, "on, warnings only",
                f"warn_only keeps the nondeterministic kernel of {kept}",
            )  # fmt: skip
        if bad:
            return Setting(
                _DETERMINISTIC, requested, "on",
                f"{_DETERMINISTIC} is on, and yet {', '.join(bad)} gave other bits",
            )  # fmt: skip
        return Setting(_DETERMINISTIC, requested, "on, warnings only" if warn_only else "on")

    def _fill(self) -> Setting:
        name = "torch.utils.deterministic.fill_uninitialized_memory"
        wanted, on = self._now[name], self._now[_DETERMINISTIC]
        force = "new memory is filled" if wanted and on else "new memory is not filled"
        return Setting(name, "on" if wanted else "off", force)

    def _threads(self) -> Setting:
        threads, late = self._now[_THREADS], self._late(_THREADS)
        if late is None:
            return Setting("threads", str(threads), f"{threads} for all ops")
        return Setting(
            "threads",
            str(threads),
            f"{late.before} for the first {late.ops} op calls, then {late.after}",
            f"the number of threads changed from {late.before} to {late.after} after {late.ops} op "
            "calls, and some bits depend on it",
        )

    def _cudnn(self, cuda: bool) -> Setting:
        on = self._now[_BENCHMARK]
        if not cuda:
            return Setting(_BENCHMARK, "on" if on else "off", "without effect: no CUDA in this run")
        finding = "cuDNN chooses kernels by timing them, which may differ from run to run"
        if on:
            return Setting(_BENCHMARK, "on", "on", f"{_BENCHMARK} is on: {finding}")
        return Setting(_BENCHMARK, "off", "off")

    def _precision(self, cuda: bool) -> Setting:
        wanted = str(self._now[_PRECISION])
        if not cuda:
            return Setting("TF32", f"matmul precision {wanted}", "no CUDA in this run")
        force = "products in float32" if wanted == "highest" else "products in TF32 where there is"
        return Setting("TF32", f"matmul precision {wanted}", force)

    def _variable(self, name: str, cuda: bool) -> Setting:
        start, now = self._start.get(name), self._now.get(name)
        requested = "not set any more" if now is None else now
        if start == now:
            return Setting(name, requested, "set before the process began")
        change = next(iter(self._changes.get(name, ())), None)
        ops = change.ops if change is not None else 0
        if name == "PYTHONHASHSEED":
            return _too_late(name, requested, "Python reads it when it starts")
        if name in _AT_TORCH:
            if self._at_import is not None and self._at_import.get(name) == now:
                return Setting(
                    name, requested,
                    "in runs of its own: set before torch is imported; here torch was loaded first",
                )  # fmt: skip
            return _too_late(name, requested, "it is read when torch is imported")
        if name in _AT_FIRST_OP and ops > 0:
            return _too_late(
                name, requested, f"{ops} op calls had run, and it is read at the first"
            )
        if name in _AT_CUDA and change is not None and change.cuda:
            return _too_late(name, requested, "CUDA had been initialised")
        if name in _AT_CUDA and not cuda:
            return Setting(name, requested, "without effect: no CUDA in this run")
        return Setting(name, requested, "set by the program, in time")


def _too_late(name: str, requested: str, why: str) -> Setting:
    return Setting(name, requested, "no", f"{name} was set too late: {why}")


def _read() -> dict[str, Any]:
    found = read_switches()
    variables: Mapping[str, Any] = found.pop("environment")
    return {**found, **variables}
