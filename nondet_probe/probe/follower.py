"""One copy of a run that follows it in lockstep, what is changed in it, and what is seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nondet_probe.bits import BitChange, flip_bit
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.checkpoint import copy_state
from nondet_probe.probe.distance import Apart, Distances, Measured
from nondet_probe.probe.drive import guarded_step
from nondet_probe.probe.inject.alone import inject
from nondet_probe.probe.inject.apply import apply
from nondet_probe.probe.inject.rehearse import check_fault
from nondet_probe.records.fault import Fault
from nondet_probe.records.measured import Predictions
from nondet_probe.workload import Workload

__all__ = ["Flip", "Follower"]

# There is no loader in a step of a workload: what is due then is changed before the step.
_BEFORE_THE_STEP = ("before data", "after data")


@dataclass(frozen=True)
class Flip:
    """One bit of one parameter, by name and flat index, flipped before `step` begins."""

    name: str
    index: int
    bit: int
    step: int = 0


class Follower:
    """workload: the copy, as built. told: what messages call it. fault: what is changed in it; None
    for a control, or where the caller changes it. born: the step from which on it is stepped; if
    that is not 0 it takes the run's state over as that step begins. brief: only the distance over
    all parameters is kept, not that of each tensor.

    change: what was changed, None as long as nothing was. norm: L2 of the run's parameters at that
    moment. absorbed_step: first step after which its state was the run's again and stayed so.
    spread_step: first step after which more than one element of the parameters differed. left: the
    first step after which any bit of its state was another than the run's, and where. losses,
    distances: of the steps from `born` on. evaluation, predictions, no_predictions: as in
    TwinRecord, for whoever evaluates it to set.

    Raises UsageError for a change that cannot be made, as far as that is known before any step.
    """

    def __init__(
        self,
        run: Workload,
        workload: Workload,
        told: str = "the twin",
        fault: Flip | Fault | None = None,
        born: int = 0,
        brief: bool = False,
    ) -> None:
        self.workload, self.told, self.fault, self.born = workload, told, fault, born
        self.change: BitChange | None = None
        self.norm: float | None = None
        self.absorbed_step: int | None = None
        self.spread_step: int | None = None
        self.left: tuple[int, str] | None = None
        self.distances = Distances(run, brief=brief)
        self.losses: list[float] = []
        self.evaluation: dict[str, float] = {}
        self.predictions: Predictions | None = None
        self.no_predictions: str | None = "the run was not followed to its end"
        if isinstance(fault, Fault):
            check_fault(fault, workload.model, workload.optimizer)
        elif fault is not None:
            self._flip(fault).undo(workload.model.get_parameter(fault.name))

    @property
    def since(self) -> int:
        """The step of its change."""
        return self.fault.step if self.fault is not None else self.born

    def begin(self, run: Workload, step: int) -> None:
        """Before the run's own step. Raises UsageError where the run's state cannot be taken over,
        and for a parameter that is another by now."""
        if step == self.born != 0:
            copy_state(run, self.workload)
        if self.change is not None or self.fault is None or self.fault.step != step:
            return
        if isinstance(self.fault, Flip) or self.fault.when != "after optimizer":
            self.norm = _norm(run.model)
        if isinstance(self.fault, Flip):
            self.change = self._flip(self.fault)

    def step(self, batch: Any, step: int) -> float:
        """Its step, with what is changed in it; the loss, which may be no finite number.

        Raises RunFailedError where its step fails, or what was to be changed is not there.
        """
        fault = self.fault
        if self.change is not None or not isinstance(fault, Fault) or fault.step != step:
            return float(guarded_step(self.workload, batch, step, self.told))
        model, optimizer = self.workload.model, self.workload.optimizer
        if fault.when in _BEFORE_THE_STEP:
            try:
                self.change = apply(fault, model, optimizer, batch).change
            except UsageError as error:
                raise RunFailedError(
                    f"nothing was injected ({fault}): {error}", step=step
                ) from error
            return float(guarded_step(self.workload, batch, step, self.told))
        # To the injector it is a training of this step alone.
        now = replace(fault, step=0)
        injecting = inject(now, model=model, optimizer=optimizer)
        try:
            with injecting:
                loss = float(guarded_step(self.workload, batch, step, self.told))
                injecting.step()
        except (RunFailedError, UsageError) as error:
            told = str(error).replace(str(now), str(fault))
            if isinstance(error, UsageError) and str(fault) not in told:
                told = f"nothing was injected ({fault}): {told}"
            raise RunFailedError(told, step=step) from error
        self.change = injecting.change
        return loss

    def compare(self, run: Workload) -> Measured:
        """Its state beside the run's. Raises as `Distances.measure`."""
        if self.change is not None and self.norm is None:
            self.norm = _norm(run.model)
        return self.distances.measure(run, self.workload)

    def keep(self, step: int, loss: float, found: Measured) -> Apart:
        """What `compare` found after this step."""
        apart = self.distances.keep(found)
        self.losses.append(loss)
        if self.left is None and apart.first is not None:
            self.left = step, apart.first
        if step >= self.since:
            if self.spread_step is None and apart.parameters > 1:
                self.spread_step = step
            if apart.first is not None:
                self.absorbed_step = None
            elif self.absorbed_step is None:
                self.absorbed_step = step
        return apart

    def _flip(self, fault: Flip) -> BitChange:
        name = fault.name
        try:
            return flip_bit(self.workload.model.get_parameter(name), fault.index, fault.bit, name)
        except (TypeError, UsageError) as error:
            raise UsageError(f"parameter {name!r}: {error}") from error


def _norm(model: torch.nn.Module) -> float:
    """L2 of all floating-point parameters together, summed up in float64."""
    found: Sequence[torch.Tensor] = [
        torch.linalg.vector_norm(parameter.detach(), dtype=torch.float64)
        for parameter in model.parameters()
        if parameter.is_floating_point() and parameter.layout is torch.strided
    ]
    return float(torch.stack([one.cpu() for one in found]).norm()) if found else 0.0
