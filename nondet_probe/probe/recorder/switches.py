"""The switches as in force, wherever they are no more what they were."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from nondet_probe.env import read_switches
from nondet_probe.probe.recorder.contents import contents
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.trace import SETUP, Site

__all__ = ["Switches"]

_ABSENT = "not set"


class Switches:
    """Looks at the switches at the start of each recorded step and before each record of the setup;
    one record for each that changed since the last look, the first of which is where the recording
    begins and its environment is read. The record's name is the switch's, its note says
    "name: old -> new". Some 15 us a look.

    A switch that is set and put back within a step leaves no record.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._last = _flat(read_switches())
        sink.at_step_start(self._look)
        # The setup has no other start, and what was set in it comes before what is computed in it.
        sink.before_records_of_setup(self._look)

    def __enter__(self) -> Switches:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """There is nothing to remove: the sink calls, and only while it records."""

    def _look(self) -> None:
        now = _flat(read_switches())
        if now == self._last:
            return
        for name in sorted({*now, *self._last}):
            old, new = self._last.get(name, _ABSENT), now.get(name, _ABSENT)
            if old != new:
                phase = "setup" if self._sink.step == SETUP else "data"
                site = Site(phase, "environment", name, note=f"{name}: {old} -> {new}")
                self._sink.add(site, contents(new)[0], contents(old)[0])
        self._last = now


def _flat(switches: dict[str, Any]) -> dict[str, Any]:
    """The variables of the environment as switches of their own."""
    found = {name: value for name, value in switches.items() if name != "environment"}
    found.update(switches["environment"])
    return found
