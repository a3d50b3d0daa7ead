"""Run the recorded command again up to the first root, and look at that op call.

It runs in a fresh process, which `python -m nondet_probe.cli.replay` is: the parent hands over what
to look for as JSON on the command line, the child writes what it found as JSON to a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nondet_probe.env.switches import stored_variables
from nondet_probe.probe.differ.environment import thread_counts
from nondet_probe.records.codec import decode, encode
from nondet_probe.records.difference import Cause, TraceDifference
from nondet_probe.records.trace import Site, TraceMeta
from nondet_probe.records.trace_reader import open_trace

__all__ = ["environment_of", "replay", "why_not"]


def why_not(difference: TraceDifference) -> str | None:
    """Why the first root of a difference cannot be replayed, or None."""
    meta, root = difference.meta_a, difference.roots[0] if difference.roots else None
    if root is None:
        return "there is no difference whose op could be executed again"
    if root.a is None or root.b is None or root.a.site.kind != "op":
        return "the first difference is no call of an op in both runs; only such a call is replayed"
    if root.inputs_equal is False:
        return "the op was given other inputs already: executing it again would show nothing"
    if meta is None or meta.command is None:
        return "run a was recorded from code: there is no command that could be run again"
    if meta.injected is not None:
        return "run a had a fault injected, which a replay would not have: name the plain run first"
    if meta.world != 1:
        return "run a is one of several processes: only a run of one process is replayed"
    target = meta.command
    if target[0] != "-m" and not Path(target[0]).is_file():
        return f"no such script from here: {target[0]}; go to the folder where it was recorded"
    return None


def replay(difference: TraceDifference, folder: Path, *, stdin: int | None = None) -> Cause:
    """Run run a's command again, with its environment's variables, until the first root's op call;
    execute that again and keep its tensors in `folder`.

    stdin: as of `subprocess`, None for our own. The script's output goes to stderr. What could not
    be got is listed in `missing`.
    """
    meta, record = difference.meta_a, difference.roots[0].a
    assert meta is not None, "asked before"
    assert meta.command is not None, "asked before"
    assert record is not None, "asked before"
    trace = open_trace(Path(difference.a), meta.rank)
    earlier = sum(
        one.site == record.site for one in trace.records(record.step) if one.number < record.number
    )
    with tempfile.TemporaryDirectory(prefix="nondet-probe-") as scratch:
        result = Path(scratch) / "cause.json"
        given = {
            "result": str(result),
            "trace": str(Path(scratch) / "trace"),
            "folder": str(folder),
            "step": record.step,
            "site": list(record.site),
            "earlier": earlier,
            "inputs": record.inputs if meta.inputs else None,
            "outputs_only": not meta.inputs,
            "names": meta.names,
            "threads": thread_counts(meta, difference.meta_b),
        }
        command = [sys.executable, "-m", __name__, json.dumps(given), *meta.command]
        code = subprocess.run(
            command,
            env=environment_of(meta),
            stdin=stdin,
            stdout=sys.stderr.fileno(),
            check=False,
        ).returncode
        if not result.exists():
            how = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
            return Cause(missing=[f"the replay {how} before it could write down what it found"])
        found: Cause = decode(Cause, json.loads(result.read_bytes()))
    return found


def environment_of(meta: TraceMeta) -> dict[str, str]:
    """This process's, with the variables that decide about bits as the run of `meta` had them."""
    theirs = meta.environment.get("switches", {}).get("environment", {})
    known = stored_variables({str(name): str(value) for name, value in theirs.items()})
    mine = stored_variables(os.environ)
    return {name: value for name, value in os.environ.items() if name not in mine} | known


def _main() -> None:
    import torch

    from nondet_probe.probe.recorder.inspection import Inspection, Wanted
    from nondet_probe.probe.recorder.recording import Recording
    from nondet_probe.probe.script_steps import Enough, run_steps

    given: dict[str, Any] = json.loads(sys.argv[1])
    target = sys.argv[2:]
    module = target[0] == "-m"
    step: int = given["step"]

    def stop() -> None:
        raise Enough

    class OnlyThatStep:
        # The setup before the first step as well: a model without modules computes its loss there.
        records_setup = step <= 0

        def __call__(self, number: int) -> torch.profiler.ProfilerAction:
            of = torch.profiler.ProfilerAction
            return of.RECORD if number == step else of.NONE

    inputs = tuple(given["inputs"]) if given["inputs"] is not None else None
    wanted = Wanted(step, Site(*given["site"]), given["earlier"], inputs)
    inspection = Inspection(wanted, Path(given["folder"]), given["threads"], stop)
    recording = Recording(
        Path(given["trace"]),
        level="op",
        names=given["names"],
        outputs_only=given["outputs_only"],
        schedule=OnlyThatStep(),
        inspection=inspection,
    )
    with recording:
        ending = run_steps(target[module:], module=module)
    cause = inspection.cause
    if cause is None:
        how = f": {ending.failure}" if ending.failure is not None else ""
        cause = Cause(missing=[f"the replay did not come to that call of the op{how}"])
    beside = Path(given["result"]).with_suffix(".part")
    beside.write_text(json.dumps(encode(cause)), encoding="utf-8")
    os.replace(beside, given["result"])


if __name__ == "__main__":
    _main()
