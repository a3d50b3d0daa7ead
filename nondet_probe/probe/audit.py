"""Which determinism was requested, which is in force, and what was measured of each op."""

from __future__ import annotations

from nondet_probe.env.rng import preserved_rng
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.census import Census, Switches, thread_counts
from nondet_probe.probe.drive import Batches, build, finite_loss, guarded_step
from nondet_probe.probe.mode import MEMORY
from nondet_probe.probe.requests import Requests
from nondet_probe.probe.watch import Progress, Rerun
from nondet_probe.records import AuditRecord
from nondet_probe.workload import WorkloadFactory

__all__ = ["Audit", "audit"]


class Audit:
    """The watching of an audit; `watch` is the context in which the program runs.

    k, memory: as for `Rerun`. switches: further ones to try on what differs.
    """

    def __init__(
        self, k: int | None = None, memory: int = MEMORY, switches: Switches | None = None
    ) -> None:
        self._counts = thread_counts()
        self._census = Census(self._counts, switches)
        self.requests = Requests()
        self.watch = Rerun(k, memory=memory, census=self._census, watcher=self.requests.look)

    def record(self, steps: int) -> AuditRecord:
        """What was found in `steps` steps; after the watch."""
        found = self.watch.found(fixes=False)
        rows = self._census.rows()
        return AuditRecord(
            steps=steps,
            k=found.k,
            suspect_k=found.suspect_k,
            threads=found.threads,
            thread_counts=self._counts,
            settings=self.requests.settings(found.coverage.seen, rows),
            ops=rows,
            coverage=found.coverage,
            caveats=found.caveats + self.watch.mode_dependent(),
        )


def audit(
    factory: WorkloadFactory,
    *,
    seed: int = 0,
    steps: int = 2,
    k: int | None = None,
    memory: int = MEMORY,
    switches: Switches | None = None,
    progress: Progress | None = None,
) -> AuditRecord:
    """Build the workload and take `steps` steps of it, every op executed again, and its class asked
    what else its bits depend on: threads, the size of the batch, memory nobody wrote.

    k, memory: as for `Rerun`. switches: further ones to try on what differs, beside deterministic
    mode and one thread: name, and a function that makes a context, such as
    `{"reproducible": nondet_probe.reproducible}`. The random streams are put back.

    Raises UsageError, and RunFailedError, with the AuditRecord so far as its `partial`, when the
    workload fails.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise UsageError(f"steps={steps!r}: at least 1 training step is needed")
    tell: Progress = progress or (lambda what, done, total: None)
    looking = Audit(k, memory, switches)
    done = 0
    with preserved_rng():
        try:
            with looking.watch:
                workload = build(factory, seed)
                batches = Batches(workload, steps)
                for step in range(steps):
                    loss = guarded_step(workload, batches.draw(step), step)
                    finite_loss(loss, step)
                    done += 1
                    tell("audit", done, steps)
        except RunFailedError as error:
            error.partial = looking.record(done)
            raise
        return looking.record(done)
