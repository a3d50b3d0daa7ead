"""How far a recording goes along with a trace: noted for each record, as it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nondet_probe.probe.differ.one_step import Row, first_of_step, trace_of_step
from nondet_probe.probe.differ.scope import UNSEEDED
from nondet_probe.probe.differ.sides import key_of
from nondet_probe.probe.recorder.sink import Writer
from nondet_probe.records.difference import Root
from nondet_probe.records.trace import SETUP, Site, Words
from nondet_probe.records.trace_reader import Trace

__all__ = ["Along"]

_Given = tuple[int, Words | None]
_NO_KEY = -1


class _Step:
    """One step. due: what the reference has of it, with keys for sites. rows: the run's, so far.
    along: both agree, record by record. idle: generators in another state than in the reference,
    from which that one never drew. asked: the differ has named another first difference."""

    def __init__(self, step: int, due: list[Row]) -> None:
        self.step = step
        self.due = due
        self.rows: list[Row] = []
        self.along = True
        self.idle: set[str] = set()
        self.asked = False
        # Calls of the reference that the run has not made yet, and how many rows were taken off.
        self._left: dict[_Given, list[Words | None]] | None = None
        self._counted = 0

    def others(self, keys: list[int]) -> list[Words | None]:
        """What the reference has for calls like the last row, with its inputs, and the run has not
        had yet; empty where what the last row gave is among them. keys: of sites of the run."""
        if self._left is None:
            self._left = {}
            for key, inputs, outputs in self.due:
                self._left.setdefault((key, inputs), []).append(outputs)
        found: list[Words | None] = []
        for site, inputs, outputs in self.rows[self._counted :]:
            found = self._left.get((keys[site], inputs), [])
            if outputs in found:
                found.remove(outputs)
                found = []
        self._counted = len(self.rows)
        return found


class Along:
    """A writer that hands everything on to another one, and compares it on the way.

    As long as a step's records come as the reference has them, that is all. Where one does not, the
    differ is asked about the step: it knows what may stand elsewhere.
    """

    def __init__(self, reference: Trace, writer: Writer) -> None:
        self.reference = reference
        self.meta = writer.meta
        self._writer = writer
        self._idle = set(reference.meta.idle)
        # Generators seen in both, and those of them that were in another state from then on.
        self._met: set[str] = set()
        self._unseeded: set[str] = set()
        numbers: dict[tuple[object, ...], int] = {}
        self._due_keys = [numbers.setdefault(key_of(s), len(numbers)) for s in reference.sites]
        self._numbers = numbers
        self._order = np.argsort(reference.arrays.step, kind="stable")
        self._steps = reference.arrays.step[self._order]
        self._sites: list[Site] = []
        self._keys: list[int] = []
        self._step = self._begun(SETUP)
        self.records = 0

    @property
    def last_step(self) -> int | None:
        """Of the reference; None where it is empty."""
        return int(self._steps[-1]) if len(self._steps) else None

    def site(self, site: Site) -> int:
        number = self._writer.site(site)
        if number == len(self._sites):
            self._sites.append(site)
            self._keys.append(self._numbers.get(key_of(site), _NO_KEY))
        return number

    def add(
        self,
        step: int,
        site: int,
        inputs: Words | None,
        outputs: Words | None,
        value: float | None = None,
    ) -> int:
        number = self._writer.add(step, site, inputs, outputs, value)
        self.records += 1
        if step != self._step.step:
            self._step = self._begun(step)
        now = self._step
        place = len(now.rows)
        now.rows.append((site, inputs, outputs))
        if self._sites[site].kind == "rng":
            self._meet(now, site, outputs)
        if now.along:
            now.along = place < len(now.due) and self._agree(now, now.due[place], now.rows[place])
        return number

    def sketch(
        self, step: int, form: str, shapes: Mapping[str, Sequence[int]], buckets: bytes
    ) -> None:
        """Not compared: the digests of the parameters are."""
        self._writer.sketch(step, form, shapes, buckets)

    def flush(self) -> None:
        self._writer.flush()

    def update(self) -> None:
        self._writer.update()

    def suspect(self) -> bool:
        """Whether the last record is of a call that the reference has, given the same, with other
        results only. `first` then tells whether that is where the difference begins."""
        now = self._step
        return not now.along and not now.asked and bool(now.others(self._keys))

    def is_first(self) -> bool:
        """Whether the last record, which is suspect, is the first difference of its step."""
        now = self._step
        root = self._first(whole=False)
        now.asked = root is None or root.b is None or root.b.number != len(now.rows) - 1
        return not now.asked

    def first(self, step: int) -> Root | None:
        """The first difference of a step that is over, None where no two records differ. Its
        records are numbered within the step."""
        now = self._step
        if step != now.step or not now.due:
            return None
        # Drawn from, a generator counts with the states that it had before.
        if now.along and now.idle <= set(self.meta.idle):
            return None
        return self._first(whole=True)

    def _first(self, *, whole: bool) -> Root | None:
        now, of = self._step, self.reference
        a = trace_of_step(of.directory, of.meta, of.sites, now.step, self._due(now.step))
        b = trace_of_step(Path(), self.meta, self._sites, now.step, now.rows)
        return first_of_step(a, b, whole=whole, unseeded=self._unseeded)

    def _meet(self, now: _Step, site: int, outputs: Words | None) -> None:
        """A generator that nobody seeded differs all along; what came of that is what counts."""
        name = self._sites[site].name
        if name in UNSEEDED and name not in self._met:
            due = next((gave for key, _, gave in now.due if key == self._keys[site]), None)
            if due is not None:
                self._met.add(name)
                if due != outputs:
                    self._unseeded.add(name)

    def _agree(self, now: _Step, due: Row, row: Row) -> bool:
        site, inputs, outputs = row
        key, due_inputs, due_outputs = due
        if key != self._keys[site]:
            return False
        if inputs == due_inputs and outputs == due_outputs:
            return True
        found = self._sites[site]
        if found.kind != "rng":
            return False
        if found.name in self._unseeded:
            return True
        if found.name in self._idle:
            now.idle.add(found.name)
            return True
        return False

    def _begun(self, step: int) -> _Step:
        keys = self._due_keys
        return _Step(step, [(keys[site], given, gave) for site, given, gave in self._due(step)])

    def _due(self, step: int) -> list[Row]:
        """The records of the reference of this step, in order."""
        begin, end = np.searchsorted(self._steps, [step, step + 1])
        at, of = self._order[begin:end], self.reference.arrays
        columns = (of.site, of.has_inputs, of.in0, of.in1, of.has_outputs, of.out0, of.out1)
        return [
            (site, (in0, in1) if has_in else None, (out0, out1) if has_out else None)
            for site, has_in, in0, in1, has_out, out0, out1 in zip(
                *(column[at].tolist() for column in columns), strict=True
            )
        ]
