"""Drive a workload step by step, and say clearly what went wrong, at which step, when it does.

Every probe that runs a `Workload` goes through here, so that the same mistake gives the same
message everywhere. Exceptions and sys.exit() are translated: KeyboardInterrupt passes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from nondet_probe.env.rng import seed_all
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.workload import Workload, WorkloadFactory, take_step

__all__ = ["Batches", "PlainRun", "build", "evaluated", "finite_loss", "guarded_step", "plain_run"]

# What the user's code may raise. A script's sys.exit() must not end the probe as if all were well.
_USER = (Exception, SystemExit)
# Any constant: it tells the streams of training from those of building.
_TRAINING = 0x9E3779B9
_CONTRACT = (
    "a workload is a function of a seed that returns "
    "nondet_probe.Workload(model, optimizer, batches, loss)"
)
_WANTED = {
    "model": "a torch.nn.Module",
    "optimizer": "a torch optimizer or None",
    "batches": "something that can be iterated",
    "loss": "a function of (model, batch)",
    "step": "a function of (workload, batch) or None",
    "evaluate": "a function of (model) or None",
}


def build(factory: WorkloadFactory, seed: int) -> Workload:
    """Seed every random stream, call `factory(seed)`, check what it returns, and seed anew.

    The model stays in the mode (train or eval) in which the factory left it.
    Raises UsageError when the result is no usable Workload or `seed` is out of range, and
    RunFailedError (step None, the exception chained) when the factory raises. A UsageError of the
    factory's own passes as it is.
    """
    if not callable(factory):
        raise UsageError(f"{factory!r} cannot be called: {_CONTRACT}")
    try:
        seed_all(seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        workload = factory(seed)
    except UsageError:
        raise
    except _USER as error:
        raise RunFailedError(f"building the workload failed: {_told(error)}", step=None) from error
    _check(workload)
    # What building drew must not move the streams of training: the first build of a process may
    # draw more than later ones (an import inside of the factory can). Not the same seed again, or
    # the first dropout masks would come from the draws that made the first weights.
    seed_all(seed ^ _TRAINING)
    return workload


def _check(given: Any) -> None:
    """What the types cannot promise, since the factory is the user's; UsageError names it all."""
    if not isinstance(given, Workload):
        raise UsageError(f"the workload function returned {_kind(given)}: {_CONTRACT}")
    values: dict[str, Any] = vars(given)
    usable = {
        "model": isinstance(values["model"], torch.nn.Module),
        "optimizer": values["optimizer"] is None
        or (
            callable(getattr(values["optimizer"], "step", None))
            and hasattr(values["optimizer"], "param_groups")
        ),
        "batches": hasattr(values["batches"], "__iter__")
        or hasattr(values["batches"], "__getitem__"),
        "loss": callable(values["loss"]),
        "step": values["step"] is None or callable(values["step"]),
        "evaluate": values["evaluate"] is None or callable(values["evaluate"]),
    }
    bad = [
        f"{name} is {_kind(values[name])}, not {_WANTED[name]}"
        for name, ok in usable.items()
        if not ok
    ]
    if bad:
        raise UsageError(f"this Workload cannot be used: {'; '.join(bad)}")


class Batches:
    """The batches of one workload, drawn one by one; its iterator starts at the first draw."""

    def __init__(self, workload: Workload, steps: int) -> None:
        self._batches = workload.batches
        self._steps = steps
        self._iterator: Iterator[Any] | None = None

    def draw(self, step: int) -> Any:
        """The batch of `step`; RunFailedError when there is none or the data raises."""
        try:
            if self._iterator is None:
                self._iterator = iter(self._batches)
            return next(self._iterator)
        except StopIteration:
            # Not chained: the iterator's end is no error of the user's code.
            raise RunFailedError(
                f"batches ran out at step {step}: the workload gave {step} batches, {self._steps} "
                f"were asked for; ask for at most {step} steps or make batches endless",
                step=step,
            ) from None
        except _USER as error:
            raise RunFailedError(
                f"drawing the batch of step {step} failed: {_told(error)}", step=step
            ) from error


def guarded_step(workload: Workload, batch: Any, step: int, copy: str = "") -> torch.Tensor:
    """`take_step`, with any exception as a RunFailedError that names `step`.

    copy: which copy of the run this is, for the message ("" for the run itself). Returns the
    detached loss, known to be a real floating tensor of one element; it is not read here, so that
    nothing but the user's own ops runs.
    """
    where = f"step {step}" + (f" of {copy}" if copy else "")
    try:
        loss = take_step(workload, batch)
    except _USER as error:
        raise RunFailedError(f"{where} failed: {_told(error)}", step=step) from error
    if loss.numel() != 1 or not loss.is_floating_point():
        raise RunFailedError(
            f"{where} gave a loss of shape {tuple(loss.shape)} and {loss.dtype}; the loss must be "
            "one floating-point number, such as loss.mean()",
            step=step,
        )
    return loss


def finite_loss(loss: torch.Tensor, step: int) -> float:
    """The loss as a Python float (exact); RunFailedError when it is NaN or infinite."""
    value = float(loss)
    if not math.isfinite(value):
        raise RunFailedError(
            f"the loss is {value} at step {step}; training cannot be followed beyond it", step=step
        )
    return value


def evaluated(workload: Workload, steps: int) -> dict[str, float]:
    """What `workload.evaluate` says of the model after `steps` steps; {} when it has none.

    Raises RunFailedError (step `steps`) when it raises or gives no mapping of names to numbers.
    """
    if workload.evaluate is None:
        return {}
    try:
        figures = workload.evaluate(workload.model)
        return {str(name): _number(value) for name, value in figures.items()}
    except _USER as error:
        raise RunFailedError(
            f"evaluate failed after {steps} steps: {_told(error)}", step=steps
        ) from error


@dataclass
class PlainRun:
    """Some steps without any probe: what every probed run is compared with.

    seconds: wall time of each step, with the drawing of its batch.
    """

    workload: Workload
    losses: list[float]
    seconds: list[float]


def plain_run(factory: WorkloadFactory, seed: int, steps: int) -> PlainRun:
    """Build the workload and take `steps` steps of it. Draws from the global random streams."""
    workload = build(factory, seed)
    batches = Batches(workload, steps)
    run = PlainRun(workload, [], [])
    for step in range(steps):
        start = time.perf_counter()
        batch = batches.draw(step)
        loss = guarded_step(workload, batch, step)
        run.losses.append(finite_loss(loss, step))
        run.seconds.append(time.perf_counter() - start)
    return run


def _number(value: Any) -> float:
    # float() of a tensor that requires grad warns.
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _kind(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
