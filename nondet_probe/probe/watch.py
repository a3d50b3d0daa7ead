"""Watch any code: execute each op it calls several times and compare the bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType

import torch

from nondet_probe.env import available_cpus
from nondet_probe.env.torch_private import has_compiled_code
from nondet_probe.errors import UsageError
from nondet_probe.probe.census import Census
from nondet_probe.probe.fixes import fixes_of
from nondet_probe.probe.mode import MEMORY, RerunMode
from nondet_probe.probe.suspects import SUSPECT_K, K
from nondet_probe.records import RerunRecord

__all__ = ["Progress", "Rerun", "check_k"]

Progress = Callable[[str, int, int], None]

# Measured over torch's own samples of 702 ops on 2.13: under any dispatch mode, this one or one
# that does nothing, torch computes the gradients of these (of hfft the value, under inference_mode)
# by another formula, with other bits. All others kept theirs.
_MODE_DEPENDENT = frozenset(
    (
        "aten.fft_hfft2.default",
        "aten.fft_hfftn.default",
        "aten.masked_fill.Tensor",
        "aten.masked_fill_.Tensor",
        "aten.prod.default",
        "aten.prod.dim_int",
    )
)


def check_k(k: int | None) -> None:
    """UsageError unless `k` is a number of executions that can show a difference, or None."""
    if k is None:
        return
    if not isinstance(k, int) or isinstance(k, bool) or k < 2:
        raise UsageError(
            f"k={k!r}: at least 2 executions of each op are needed to compare any; the one that "
            "training goes on with counts as one"
        )


class Rerun:
    """Watch the code in a `with` block; `record()` afterwards tells what was found.

        with Rerun(model=model) as watch:
            loss = model(batch).mean()
            loss.backward()
        for site in watch.record().sites:
            print(site.op, site.file, site.line)

    k: executions of each op in all, the one that training goes on with included; None executes most
    of them twice, and 20 times what differed before or is nondeterministic by PyTorch's own
    documentation. model: names modules by their path in it; without it the path starts with the
    class of the outermost module. memory: bytes that the copies and results of one more execution
    may take; a call that would take more is not covered. census: counts classes of calls and asks
    what else their bits depend on. watcher: called before each op with the number of ops before it.
    The block may be entered again and again, not inside itself; the findings add up, and `steps` of
    the record counts the entries. Ops that other Python threads start are not seen, since dispatch
    modes belong to a thread.
    """

    def __init__(
        self,
        k: int | None = None,
        model: torch.nn.Module | None = None,
        *,
        memory: int = MEMORY,
        census: Census | None = None,
        watcher: Callable[[int], None] | None = None,
    ) -> None:
        check_k(k)
        if memory < 1:
            raise UsageError(f"memory={memory}: at least 1 byte")
        self._k = K if k is None else k
        self._suspect_k = SUSPECT_K if k is None else None
        self._mode = RerunMode(
            self._k, model, suspect_k=self._suspect_k, memory=memory, census=census, watcher=watcher
        )
        self._threads = torch.get_num_threads()
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        self._entered = 0
        self._inside = False
        self._started = 0.0
        self._seconds = 0.0
        self._record: RerunRecord | None = None

    def __enter__(self) -> Rerun:
        if self._inside:
            raise UsageError("this Rerun is already watching; make another one for the inner block")
        self._record = None
        self._threads = torch.get_num_threads()
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        self._mode.places.start()
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._inside = True
        self._entered += 1
        self._started = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._seconds += time.perf_counter() - self._started
        self._inside = False
        self._mode.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]

    def record(self) -> RerunRecord:
        """What was found, with every known fix tried on the worst call of each place.

        Raises UsageError inside of the `with` block. The record is made once; asking again gives
        the same one until the block is entered again.
        """
        if self._inside:
            raise UsageError("record() is for after the `with` block: leave it first")
        if self._record is None:
            self._record = self.found(fixes=True)
            self._record.caveats += self.mode_dependent()
        return self._record

    def mode_dependent(self) -> list[str]:
        """A caveat when an op was called whose bits depend on whether any dispatch mode is on."""
        called = sorted(self._mode.tally.ops() & _MODE_DEPENDENT)
        if not called:
            return []
        return [
            f"{', '.join(called)}: while a dispatch mode is on, torch computes the gradients of "
            "such an op by another formula, so the bits may not be those of training without"
        ]

    def found(
        self, *, fixes: bool, tell: Progress | None = None, losses: Iterable[float] = ()
    ) -> RerunRecord:
        """A new record of what was found so far; fixes: try them, calling `tell` after each place.

        losses: of the steps watched.
        """
        differing = self._mode.tally.differing()
        sites = []
        for number, site in enumerate(differing):
            record = site.record()
            if fixes and site.worst is not None:
                record.fixes = fixes_of(site.worst, site.place.phase, max(10, self._k))
            sites.append(record)
            if fixes and tell is not None:
                tell("fixes", number + 1, len(differing))
        lost = [f"no fix was tried on {site.op}: {site.lost}" for site in differing if site.lost]
        return RerunRecord(
            k=self._k,
            suspect_k=self._suspect_k,
            steps=self._entered,
            threads=self._threads,
            losses=list(losses),
            sites=sites,
            coverage=self._mode.coverage,
            caveats=_caveats(self._threads, self._deterministic) + lost,
            probe_seconds=self._seconds,
        )


def _caveats(threads: int, deterministic: bool) -> list[str]:
    """What limits the findings; sentences without a full stop."""
    processors = available_cpus()
    told = []
    if threads == 1:
        told.append(
            "with one thread races between threads cannot show: run with two or more "
            "(torch.set_num_threads, OMP_NUM_THREADS)"
        )
    elif processors < threads:
        told.append(
            f"{threads} threads share {processors} processor{'s' * (processors > 1)} of this "
            "process, so races between threads show less often than on as many processors"
        )
    if deterministic:
        told.append(
            "torch.use_deterministic_algorithms was on: what it makes deterministic was not seen "
            "as it is without"
        )
    if has_compiled_code():
        told.append(
            "torch.compile has compiled code in this process: of such code only the ops that it "
            "calls one by one are seen"
        )
    return told
