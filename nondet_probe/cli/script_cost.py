"""What determinism costs a training script: one process an arm, their steps taking turns.

`python -m nondet_probe.cli.script_cost` is such a process. At the end of each optimizer step it
says how long the step took and waits for a word: so only one of them works at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from nondet_probe.cli.subject import Subject
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.costs import Timed, cost_record
from nondet_probe.probe.unwritten import FillVerdict, judge
from nondet_probe.records import CostRecord

__all__ = ["cost_script"]

_ATTRIBUTED = 3
_FILL_STEPS = 2
_STEP, _OPS, _STOP = "step", "ops", "stop"
# deterministic, fill: what is set anew after each step, since the script may set it itself.
_ARMS: dict[str, tuple[bool, bool]] = {
    "default": (False, False),
    "deterministic": (True, True),
    "deterministic, no fill": (True, False),
    "reproducible": (False, False),
}


def cost_script(
    subject: Subject,
    *,
    steps: int,
    threads: int | None,
    progress: Callable[[str, int, int], None],
) -> CostRecord:
    """Time `steps` steps of the script in each arm, after one to warm up; see `probe.cost.cost`.

    The script runs once an arm, all of them at the same time but for their steps, and up to four
    times more for a few steps, to tell whether the fill of new memory is needed. Raises UsageError,
    and RunFailedError with the record so far as its `partial`, where it fails in the default arm.
    """
    if steps < 1:
        raise UsageError(f"steps={steps}: at least 1 step must be timed")
    with contextlib.ExitStack() as stack:
        arms = [stack.enter_context(_arm(name, subject, threads)) for name in _ARMS]
        timed = [arm.timed for arm in arms]
        rounds = 1 + steps + _ATTRIBUTED
        for number in range(rounds):
            for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                if number == 0:
                    arm.receive()  # the step to warm up, with all that comes before it
                elif not arm.ended:
                    arm.step(_STEP if number <= steps else _OPS)
            if arms[0].timed.error is not None:
                raise RunFailedError(
                    arms[0].timed.error, step=len(timed[0].seconds), partial=cost_record(timed)
                )
            progress("cost of determinism", number + 1, rounds)
    record = cost_record(timed)
    record.fill_needed, record.fill_reason = _fill(subject, threads)
    return record


class _Arm:
    """The parent's side of one process."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], to: IO[str], of: IO[str]):
        self.timed = Timed(name)
        self.process, self._to, self._of = process, to, of
        self.ended = False
        self.digests: list[str] = []
        self.controlled = False

    def step(self, word: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._to.write(word + "\n")
            self._to.flush()
        self.receive(kept=word == _STEP)

    def receive(self, kept: bool = False) -> None:
        """What the process says of its step, or of its end."""
        line = self._of.readline()
        told: dict[str, Any] = {"failure": "its process ended at once"}
        if line:
            told = json.loads(line)
        if "seconds" in told:
            if kept:
                self.timed.seconds.append(told["seconds"])
            if told["ops"] is not None:
                self.timed.ops.append({name: (n, s) for name, (n, s) in told["ops"].items()})
            self.digests, self.controlled = told["digests"], told["controlled"]
            return
        self.ended, self.timed.error = True, told["failure"]

    def leave(self) -> None:
        if not self.ended:
            with contextlib.suppress(BrokenPipeError):
                self._to.write(_STOP + "\n")
                self._to.flush()
        self.process.wait()


@contextlib.contextmanager
def _arm(name: str, subject: Subject, threads: int | None, **more: Any) -> Iterator[_Arm]:
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    options = {
        "arm": name,
        "module": subject.module,
        "threads": threads,
        "words": theirs_in,
        "answers": theirs_out,
        **more,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(options), *subject.words],
        pass_fds=(theirs_in, theirs_out),
        # The same words again and again would help nobody; why an arm failed is in its answer.
        stdout=None if name == "default" else subprocess.DEVNULL,
        stderr=None if name == "default" else subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    with os.fdopen(ours_out, "w") as to, os.fdopen(ours_in) as of:
        arm = _Arm(name, process, to, of)
        try:
            yield arm
        except BaseException:
            process.terminate()
            raise
        finally:
            arm.leave()


def _fill(subject: Subject, threads: int | None) -> FillVerdict:
    """Whether the bits of the first steps depend on what new memory holds."""

    def run(content: int | None) -> _Arm:
        name = "deterministic" if content is None else "deterministic, no fill"
        with _arm(name, subject, threads, content=content, digests=True) as arm:
            arm.receive()
            for _ in range(_FILL_STEPS - 1):
                if not arm.ended:
                    arm.step(_STEP)
        if arm.timed.error is not None:
            raise RunFailedError(arm.timed.error, step=None)
        return arm

    def compare(one: _Arm, other: _Arm) -> str | None:
        return None if one.digests == other.digests else "the parameters or the optimizer's state"

    try:
        return judge(run, compare, lambda arm: arm.controlled)
    except RunFailedError as error:
        return FillVerdict(None, f"not tested: {error}")


class _Child:
    """The process's side: called at the end of each optimizer step."""

    def __init__(self, options: dict[str, Any], words: IO[str], answers: IO[str]) -> None:
        self._options, self._words, self._answers = options, words, answers
        self._times: Any = None
        self.controlled = False
        self._start = time.perf_counter()

    def set_switches(self) -> None:
        import torch

        deterministic, fill = _ARMS[self._options["arm"]]
        torch.use_deterministic_algorithms(deterministic)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", fill)  # noqa: B010

    def after_step(self, steps: int, optimizer: Any) -> bool:
        """Tell how long the step took and wait for the next word; returns whether to go on."""
        import torch

        from nondet_probe.probe.optimes import OpTimes

        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        ops = None
        if self._times is not None:
            self._times.__exit__(None, None, None)
            ops, self._times = self._times.taken(), None
        self._say(
            {
                "seconds": seconds,
                "ops": ops,
                "digests": _digests(optimizer) if self._options.get("digests") else [],
                "controlled": self.controlled and _on_host(optimizer),
            }
        )
        word = self._words.readline().strip()
        if word not in (_STEP, _OPS):
            return False
        self.set_switches()
        if word == _OPS:
            self._times = OpTimes()
            self._times.__enter__()
        self._start = time.perf_counter()
        return True

    def say_end(self, failure: str | None) -> None:
        self._say({"failure": failure})

    def _say(self, told: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._answers.write(json.dumps(told) + "\n")
            self._answers.flush()


def _state(optimizer: Any) -> list[Any]:
    import torch

    found = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [value for p in found for value in optimizer.state.get(p, {}).values()]
    return found + [value for value in kept if isinstance(value, torch.Tensor)]


def _digests(optimizer: Any) -> list[str]:
    from nondet_probe.bits.digest import digest

    return [str(digest(tensor.detach())) for tensor in _state(optimizer)]


def _on_host(optimizer: Any) -> bool:
    return all(tensor.is_cpu for tensor in _state(optimizer))


def _main() -> None:
    import torch

    from nondet_probe.env.host_memory import filled_allocations
    from nondet_probe.mitigate.reproducible import reproducible
    from nondet_probe.probe.script_steps import end_process, run_steps

    options, target = json.loads(sys.argv[1]), sys.argv[2:]
    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    with (
        os.fdopen(options["words"]) as words,
        os.fdopen(options["answers"], "w") as answers,
        contextlib.ExitStack() as stack,
    ):
        child = _Child(options, words, answers)
        if options["arm"] == "reproducible":
            stack.enter_context(reproducible())
        child.set_switches()
        content: int | None = options.get("content")
        if content is not None:
            child.controlled = stack.enter_context(filled_allocations(content))
        ending = run_steps(target, module=options["module"], after_step=child.after_step)
        child.say_end(ending.failure)
    end_process()


if __name__ == "__main__":
    _main()
