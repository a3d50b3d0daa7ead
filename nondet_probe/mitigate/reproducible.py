"""A model made deterministic without editing it: ATen's overloads take another way for a while.

with nondet_probe.reproducible() as run:
    train()
print(run.report())
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any

import torch

from nondet_probe.env.torch_private import (
    Interception,
    cpu_overloads,
    cuda_overloads,
    has_compiled_code,
)
from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.mitigate import measured, switches
from nondet_probe.mitigate.account import Account
from nondet_probe.mitigate.family import FAMILY
from nondet_probe.mitigate.on_cuda import (
    BREAKS,
    GIVEN_ON_CUDA,
    KERNEL,
    kernels_here,
    routes_on_cuda,
    why_no_kernels,
)
from nondet_probe.mitigate.routes import GIVEN, UNKNOWN, UNTOUCHED, Route, routes
from nondet_probe.mitigate.strict import strict_products
from nondet_probe.mitigate.via_c import require_threads
from nondet_probe.ops.registry import Guarantee

__all__ = ["reproducible"]

Key = tuple[Guarantee, bool]
Counts = dict[tuple[str, str], int]


_ON = {"CPU": "", "CUDA": " on cuda"}
"""What the names of overloads are followed by in an account."""


@dataclass
class _Session:
    """One set of routes, put in place and taken away; its counts go on each time.

    routes: by dispatch key and overload. switched: whether torch's switches for GPUs are set too.
    """

    key: Key
    routes: dict[str, dict[str, Route]]
    switched: bool
    interception: Interception = field(default_factory=Interception)
    switches: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    switched_back: set[str] = field(default_factory=set)
    counters: dict[tuple[str, str], Any] = field(default_factory=dict)

    def install(self) -> None:
        try:
            if self.switched:
                self.switches.enter_context(switches.deterministic_cuda())
            for name in dict.fromkeys(name for found in self.routes.values() for name in found):
                makes = {
                    device: partial(self._made, name + _ON[device], found[name])
                    for device, found in self.routes.items()
                    if name in found
                }
                self.interception.put(name, makes)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        self.interception.remove()
        if self.switched:
            self.switched_back |= switches.switched_back()
        self.switches.close()

    def _made(self, name: str, route: Route, original: Any) -> Any:
        def counter(how: str) -> Any:
            # next() of it is one step for the interpreter: no call is lost between threads.
            return self.counters.setdefault((name, how), count()).__next__

        return route.make(original, counter)

    def counts(self) -> Counts:
        # count(5) tells its next number only so.
        return {key: int(repr(c)[6:-1]) for key, c in list(self.counters.items())}

    def given(self, name: str, how: str) -> Guarantee:
        """What the results have of an overload, as it is called in an account."""
        for known in (GIVEN, GIVEN_ON_CUDA):
            if how in known:
                return known[how]
        device = "CUDA" if name.endswith(_ON["CUDA"]) else "CPU"
        return self.routes[device][name.removesuffix(_ON["CUDA"])].guarantee


@dataclass(eq=False)
class _Entry:
    session: _Session
    owner: reproducible
    thread: int


# The dispatcher is the process's, so is this: who is inside, the innermost last.
_lock = threading.RLock()
_inside: list[_Entry] = []


class reproducible(contextlib.ContextDecorator):  # noqa: N801  it is used as a function
    """Reroute ATen's overloads, forward and backward, so that their results have `guarantee`.

    guarantee: "none" (the family's atomic variants, everything else as it is), "run_to_run",
        "launch_invariant" (the default: the same bits for any number of threads),
        "order_invariant" or "correctly_rounded" (as far as there are variants; `report` says what
        remains weaker).
    watch: count also the calls that need no route. Costs some 3 us on each.

    Where torch sees a GPU, calls on its tensors are rerouted too, and from "run_to_run" on torch's
    deterministic mode, quieted to warnings, and cuDNN's are on meanwhile. What torch's own kernels
    do there is "run_to_run" at most: docs/reproducible.md.

    Context manager and decorator; holds for every thread of the process. Within each other the
    innermost counts, and what was there before is put back on the way out; the same instance may be
    entered again. A thread cannot ask for something else than what another thread is inside of.

    Raises UnknownNameError for an unknown guarantee, and UsageError on entry where torch has no
    OpenMP threads to set, or another thread is inside with other settings.
    """

    def __init__(self, guarantee: str = "launch_invariant", *, watch: bool = False) -> None:
        known = {str(one): one for one in Guarantee}
        if guarantee not in known:
            raise unknown_name("guarantee", guarantee, known)
        self._key: Key = (known[guarantee], watch)
        self._open = 0
        self._before: Counts = {}
        self._total: Counts = {}
        self._session: _Session | None = None
        self._others: set[str] = set()

    def __repr__(self) -> str:
        watch = ", watch=True" if self._key[1] else ""
        return f"reproducible({str(self._key[0])!r}{watch})"

    def __enter__(self) -> reproducible:
        require_threads()
        me = threading.get_ident()
        with _lock:
            top = _inside[-1].session if _inside else None
            if top is None or top.key != self._key:
                if any(entry.thread != me for entry in _inside):
                    raise UsageError(
                        "another thread is inside reproducible with other settings, and the "
                        "dispatcher is the process's: use the same guarantee and watch"
                    )
                session = self._replace(top)
                for entry in _inside:
                    entry.owner._others.add(str(self._key[0]))
            else:
                session = top
            _inside.append(_Entry(session, self, me))
            if self._open == 0:
                self._session, self._before = session, session.counts()
            self._open += 1
        return self

    def _replace(self, top: _Session | None) -> _Session:
        """This instance's routes in the place of `top`'s, which stay where that fails."""
        if top is not None:
            # First: what is intercepted does not count among what can be.
            top.remove()
        try:
            session = self._session or _session(self._key)
            session.install()
        except BaseException:
            if top is not None:
                top.install()
            raise
        return session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        me = threading.get_ident()
        with _lock:
            mine = [e for e in _inside if e.owner is self and e.thread == me]
            entry = mine[-1] if mine else next(e for e in _inside[::-1] if e.owner is self)
            installed = _inside[-1].session
            _inside.remove(entry)
            top = _inside[-1].session if _inside else None
            if top is not installed:
                installed.remove()
                if top is not None:
                    top.install()
            self._open -= 1
            if self._open == 0:
                self._total = self._counted()

    def _counted(self) -> Counts:
        counts = dict(self._total)
        if self._session is not None:
            for key, number in self._session.counts().items():
                counts[key] = counts.get(key, 0) + number - self._before.get(key, 0)
        return counts

    def report(self) -> Account:
        """What ran inside so far, in all entries of this instance together."""
        with _lock:
            counts = self._counted() if self._open else self._total
        account = Account(str(self._key[0]))
        for (name, how), calls in sorted(counts.items()):
            if not calls:
                continue
            if how == UNKNOWN:
                account.unknown[name] = calls
            elif how == UNTOUCHED:
                account.untouched[name] = calls
            elif how == KERNEL:
                account.left[name] = calls
            elif how.startswith(BREAKS):
                account.breaking[name] = account.breaking.get(name, 0) + calls
                reasons = filter(None, (account.reasons.get(name), how.removeprefix(BREAKS)))
                account.reasons[name] = "; ".join(reasons)
            else:
                account.rerouted.setdefault(name, {})[how] = calls
            self._note_weaker(account, name, how)
        account.notes += self._notes(account)
        return account

    def _note_weaker(self, account: Account, name: str, how: str) -> None:
        if how == UNKNOWN or how.startswith(BREAKS) or self._session is None:
            return
        has = self._session.given(name, how)
        told = account.weaker.get(name)
        if has < self._key[0] and (told is None or has < Guarantee[told.upper()]):
            account.weaker[name] = str(has)

    def _notes(self, account: Account) -> list[str]:
        notes = []
        if self._key[0] > Guarantee.NONE and has_compiled_code():
            notes.append("code under torch.compile runs kernels of its own, which are untouched")
        if self._session is not None and "CUDA" in self._session.routes:
            notes += _notes_on_cuda(self._session, account)
        others = sorted(self._others - {str(self._key[0])})
        notes += [f"an inner reproducible({other!r}) ruled in between" for other in others]
        if self._key[0] > Guarantee.RUN_TO_RUN and not measured.covers_running_torch():
            known = ", ".join(measured.versions())
            notes.append(f"the overloads were measured on torch {known}, not {torch.__version__}")
        return notes


def _session(key: Key) -> _Session:
    guarantee, watch = key
    strict = guarantee > Guarantee.RUN_TO_RUN and strict_products()
    found = {"CPU": routes(cpu_overloads(), guarantee, strict=strict, watch=watch)}
    on_cuda = switches.cuda_is_here()
    if on_cuda:
        found["CUDA"] = routes_on_cuda(
            *cuda_overloads(),
            guarantee,
            has_kernels=kernels_here(),
            workspace=switches.workspace_is_set(),
            watch=watch,
        )
    return _Session(key, found, on_cuda and guarantee > Guarantee.NONE)


def _notes_on_cuda(session: _Session, account: Account) -> list[str]:
    notes = [f"{name} was changed inside" for name in sorted(session.switched_back)]
    end = _ON["CUDA"]
    told = [name for name in (*account.weaker, *account.breaking) if name.endswith(end)]
    short = {name.removesuffix(end) for name in told}
    missing = why_no_kernels()
    if missing is not None and not short.isdisjoint(FAMILY):
        notes.append(f"no kernels of this library's ops were used on the GPU: {missing}")
    return notes
