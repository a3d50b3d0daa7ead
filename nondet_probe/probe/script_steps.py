"""Run a user's script, unchanged, and count its optimizer steps until there were enough."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from nondet_probe.env.script import run_script

__all__ = ["Ending", "end_process", "run_steps"]


class Enough(BaseException):
    """Ends the script; no `except Exception` of the script's catches it."""


@dataclass
class Ending:
    """How the script ended. steps: of the first optimizer seen; failure: the sentence that says
    what went wrong, None where it ran to its end or was stopped after enough steps."""

    steps: int = 0
    failure: str | None = None

    def caveats(self, wanted: int) -> list[str]:
        """What the reader must know where the script ended by itself before `wanted` steps."""
        if self.failure is not None or self.steps >= wanted:
            return []
        return [
            f"the script ended by itself after {self.steps} of {wanted} optimizer steps; all of it "
            "was watched"
        ]


def run_steps(
    target: Sequence[str],
    *,
    module: bool,
    steps: int | None = None,
    after_step: Callable[[int, Optimizer], bool] | None = None,
) -> Ending:
    """`python target...` in this process until the first optimizer seen has stepped `steps` times;
    there it is stopped, as by an exception that only its `finally` blocks see.

    steps: None for no end. after_step: called with the number of steps done and the optimizer,
    after each; the script is stopped when it returns False. A traceback of the script's goes to
    stderr.
    """
    ending = Ending()
    first: list[Optimizer] = []
    stopped: list[bool] = []

    def stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not first:
            first.append(optimizer)
        if optimizer is not first[0]:
            return
        # A script that catches everything meets it again at its next step.
        if not stopped:
            ending.steps += 1
            if ending.steps == steps:
                stopped.append(True)
            if after_step is not None and not after_step(ending.steps, optimizer):
                stopped.append(True)
        if stopped:
            raise Enough

    handle = register_optimizer_step_post_hook(stepped)
    try:
        run_script(target, module=module)
    except Enough:
        pass
    except KeyboardInterrupt:
        ending.failure = f"interrupted after {_steps(ending.steps)}"
    except SystemExit as left:
        ending.failure = _left(left, ending.steps)
    except BaseException as error:
        traceback.print_exc()
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        ending.failure = f"the script raised {told} after {_steps(ending.steps)}"
    finally:
        handle.remove()
        sys.stdout.flush()
    return ending


def end_process() -> None:
    """End this process at once if a thread of the script, which waits for it to go on, would keep
    it for ever; call it last."""
    main = threading.main_thread()
    if any(not thread.daemon and thread is not main for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(0)


def _left(left: SystemExit, steps: int) -> str | None:
    """What sys.exit() says of the script; None for a clean exit."""
    if left.code is None or left.code == 0:
        return None
    if not isinstance(left.code, int):
        print(left.code, file=sys.stderr)
    code = left.code if isinstance(left.code, int) else 1
    return f"the script left with exit code {code} after {_steps(steps)}"


def _steps(number: int) -> str:
    return f"{number} optimizer step" + "s" * (number != 1)
