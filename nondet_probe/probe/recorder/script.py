"""Run a script, or a module, under `record`, in a process of its own.

`relaunch` replaces the process by a Python into which nothing has been loaded, and calls this
module as a program. torch is imported when the script imports it, so that what the script sets
before then (OMP_NUM_THREADS, ...) has its effect; the recording begins right after that import.

    python -m nondet_probe.probe.recorder.script <options as JSON> script.py arguments
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from nondet_probe.env import script as env_script
from nondet_probe.env.awaited import when_imported

if TYPE_CHECKING:
    from nondet_probe.probe.recorder.control import Control
    from nondet_probe.probe.recorder.recording import Recording
    from nondet_probe.records.fault import Fault

__all__ = ["OUTCOME_FILE", "relaunch", "words_of"]

OUTCOME_FILE = "against.json"
"""In the run folder: how the comparison with another trace ended, as an `Outcome`."""

# Between the interpreter and the first line of the script.
_OURS = (__file__, env_script.__file__)
_RUNPY = "<frozen runpy>"
# The exit code of what cannot be done as it was asked for.
_NOT_INJECTED = 2


def relaunch(target: Sequence[str], out: Path, **options: Any) -> NoReturn:
    """Become `python target...`, recorded into the folder `out`, which exists and is empty.

    options: as of `words_of`. Output, exit code and signals are the script's own; one line on
    stderr tells the real cost in the end.
    """
    words = words_of(target, out, **options)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, words)


def words_of(
    target: Sequence[str],
    out: Path,
    *,
    module: bool,
    level: str,
    outputs_only: bool,
    names: str | None,
    steps: tuple[int, int] | None,
    against: Path | None = None,
    sketch: bool = False,
    inject: Fault | None = None,
) -> list[str]:
    """The command that is `python target...`, recorded.

    target: a script, or with `module` a module's name, and its arguments. against: a trace; at the
    first difference from it the script is stopped, with exit code 0, and how it went is in
    OUTCOME_FILE. sketch: as of `record`. inject: a fault; where it cannot be injected the script is
    ended, and an exit code of 0 becomes 2.
    """
    options = {
        "out": str(out.absolute()),
        "module": module,
        "level": level,
        "outputs_only": outputs_only,
        "names": names,
        "steps": steps,
        "inject": asdict(inject) if inject is not None else None,
        "against": str(against.absolute()) if against is not None else None,
        "sketch": sketch,
    }
    return [sys.executable, "-m", __name__, json.dumps(options), *target]


class _Run:
    """One script and its recording, which begins with torch and ends with the script. left: the
    exit code, where it is not the script's own."""

    def __init__(self, options: dict[str, Any], target: list[str]) -> None:
        self._options = options
        self._target = target
        self._process = os.getpid()
        self._recording: Recording | None = None
        self._control: Control | None = None
        self._ended = False
        self.left: int | None = None
        self.stopped = False

    def begin(self) -> None:
        from nondet_probe.errors import NondetProbeError
        from nondet_probe.probe.recorder.control import Control
        from nondet_probe.probe.recorder.live import open_reference
        from nondet_probe.probe.recorder.recording import Recording
        from nondet_probe.records.fault import Fault

        given = self._options
        out = Path(given["out"])
        inputs = not given["outputs_only"]
        steps = tuple(given["steps"]) if given["steps"] is not None else None
        self._control = Control(out, steps)
        try:
            against = None
            if given["against"] is not None:
                path = Path(given["against"])
                against = open_reference(path, level=given["level"], inputs=inputs)
            recording = Recording(
                out,
                level=given["level"],
                names=given["names"],
                outputs_only=not inputs,
                schedule=self._control,
                command=["-m", *self._target] if given["module"] else self._target,
                steps=steps,
                against=against,
                stopping=_stop,
                sketch=given["sketch"],
                inject=Fault(**given["inject"]) if given["inject"] is not None else None,
            )
            recording.__enter__()
        except NondetProbeError as error:
            # The script is not to blame, and would not know what to do with it.
            self._ended = True
            _tell(f"nothing is recorded: {error}")
            if given["inject"] is not None:
                # It is not the run that was asked for.
                sys.exit(_NOT_INJECTED)
            return
        self._recording = recording

    def end(self, error: BaseException | None, code: int) -> None:
        """The trace is closed and the cost told; once, and not in a forked child. error: what ended
        the script, None also for what is no failure."""
        if self._ended or os.getpid() != self._process:
            return
        self._ended = True
        with contextlib.suppress(BrokenPipeError, ValueError):
            sys.stdout.flush()  # what the script printed comes before what is told here
        try:
            self._close(error, code)
        except Exception as trouble:
            _tell(f"the recording could not be finished: {type(trouble).__name__}: {trouble}")

    def is_refusal(self, error: BaseException | None) -> bool:
        """Whether the script was ended by this because the fault cannot be injected."""
        return error is not None and self._recording is not None and self._recording.refused(error)

    def stopped_by(self, error: BaseException) -> bool:
        """Whether this is how the recording stops the script."""
        self.stopped = self._recording is not None and isinstance(error, _enough())
        return self.stopped

    def _close(self, error: BaseException | None, code: int) -> None:
        without_torch = self._recording is None
        if without_torch:
            importlib.import_module("torch")  # which the recording still waits for
        recording = self._recording
        if recording is None:
            return
        from nondet_probe.probe.recorder.costs import real_sentence
        from nondet_probe.records.codec import encode
        from nondet_probe.records.trace import SETUP

        meta, sink = recording.meta, recording.sink
        if without_torch:
            sink.caveat("the program did not import torch, so there was nothing to see")
        elif sink.step == SETUP:
            sink.caveat("no batch was drawn and no module was called: no training was seen")
        elif sink.step == 0:
            sink.caveat("no optimizer stepped to the end, so all that was seen lies in step 0")
        for sentence in self._control.told if self._control is not None else ():
            sink.caveat(sentence)
        meta.exit_code = None if self.stopped else code
        kind = None if error is None else type(error)
        missed = recording.missed()
        if missed is not None:
            _tell(missed)
            if code == 0 or self.is_refusal(error):
                self.left = meta.exit_code = _NOT_INJECTED
                kind = SystemExit  # beside which nothing is raised
        recording.__exit__(kind, error, None)
        if self._options["against"] is not None:
            text = json.dumps(encode(recording.outcome)) + "\n"
            (recording.out / OUTCOME_FILE).write_text(text, encoding="utf-8")
        if meta.injected is not None and meta.injected.change is not None:
            _tell(str(meta.injected))
        _tell(f"{real_sentence(meta.cost)}; {meta.coverage.records} records in {recording.out}")


def _enough() -> type[BaseException]:
    from nondet_probe.probe.script_steps import Enough

    return Enough


def _stop() -> NoReturn:
    raise _enough()


def _tell(sentence: str) -> None:
    """On the stderr that the process began with, if it is still there."""
    with contextlib.suppress(Exception):
        print(f"nondet-probe: {sentence}", file=sys.__stderr__, flush=True)


def _leave() -> None:
    """The script was stopped; a thread of it that waits for it to go on must not keep the
    process."""
    from nondet_probe.probe.script_steps import end_process

    end_process()


def _exit_code(error: BaseException | None) -> int:
    """What Python makes of what ended the script, as a shell tells it."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code & 0xFF if isinstance(error.code, int) else 1
    return 1


def _without_our_frames(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in _OURS and file != _RUNPY:
            return trace
        trace = trace.tb_next
    return None


def _hide_our_frames(error: BaseException) -> None:
    """What shows the exception, the script's own hook perhaps, is handed the script's frames."""
    shown, own = sys.excepthook, _without_our_frames(error.__traceback__)

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if value is error:
            trace = value.__traceback__ = own
        shown(kind, value, trace)

    sys.excepthook = hook


def _main() -> None:
    options, target = json.loads(sys.argv[1]), sys.argv[2:]
    run = _Run(options, target)
    leave = os._exit

    def leave_at_once(status: int) -> NoReturn:
        run.end(None, status & 0xFF)
        leave(status if run.left is None else run.left)

    os._exit = leave_at_once
    when_imported("torch", run.begin)
    ended: BaseException | None = None
    try:
        env_script.run_script(target, module=options["module"])
    except BaseException as error:
        if run.stopped_by(error):
            return
        ended = error
        if not run.is_refusal(error):
            _hide_our_frames(error)
            # Python does the rest: the traceback, the code, threads, atexit, the signal of Ctrl-C.
            raise
    finally:
        os._exit = leave
        run.end(ended, _exit_code(ended))
        del ended
        if run.left is not None:
            sys.exit(run.left)
        if run.stopped:
            _leave()


if __name__ == "__main__":
    _main()
