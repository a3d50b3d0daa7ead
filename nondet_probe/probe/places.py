"""Where in the user's program an op is called: phase, module, source line.

Everything is read from the Python stack and from autograd; nothing is hooked. Hooks on modules
would make `torch.compile` compile again, and backward hooks on modules change gradient bits.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch

from nondet_probe.env.torch_private import (
    current_autograd_node,
    frame_mark,
    last_sequence_number,
)
from nondet_probe.probe.names import Names

__all__ = ["Place", "Places", "source_text"]

_PACKAGE = Path(__file__).parents[1]
_TORCH = Path(torch.__file__).parent
# The probes, and what a user calls by name: the line wanted is the caller's. Workloads are the
# user's own.
_OURS = tuple(f"{_PACKAGE / room}/" for room in ("probe", "env", "bits", "ops", "records"))
_STANDARD = f"{sysconfig.get_path('stdlib')}/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
# Code without a file that is nobody's source: torch.fx graphs, frozen modules.
_GENERATED = ("<eval_with_key>", "<frozen ")
# Lines of forward calls that are kept for the backward pass, so that a long run without end keeps
# its memory. A step of a large model makes some ten thousand nodes.
_KEPT_NODES = 1 << 18


class Place(NamedTuple):
    """phase: "forward", "backward" or "optimizer". module: path in the model, None outside of it.
    file, line: None where no user code is known. note: what to show in place of the source line.
    again: a forward that runs once more within the backward pass, as under checkpointing."""

    phase: str
    module: str | None
    file: str | None
    line: int | None
    note: str | None = None
    again: bool = False


def source_text(place: Place) -> str | None:
    """The code at `place`, stripped; None where it cannot be read."""
    if place.note is not None or place.file is None or place.line is None:
        return place.note
    return linecache.getline(place.file, place.line).strip() or None


def _kind(code: CodeType) -> str:
    """ "user", "module", "optimizer", "engine" or "" for code that is to be passed over."""
    file = code.co_filename
    mark = frame_mark(code)
    if mark is not None:
        return mark
    if file.startswith((f"{_TORCH}/", *_OURS, *_GENERATED)):
        return ""
    if file.startswith(_STANDARD) and not any(part in file for part in _INSTALLED):
        return ""
    return "user"


class Places:
    """Finds the place of each op call; fed with every call, since a backward op is named by the
    forward call that made its node."""

    def __init__(self, model: torch.nn.Module | None = None, names: Names | None = None) -> None:
        self._names = names if names is not None else Names(model)
        # By id, since hashing a code object reads all of it; holding it keeps the id its own.
        self._kinds: dict[int, tuple[str, CodeType]] = {}
        # By thread, since each counts its nodes by itself.
        self._made: dict[int, dict[int, Place]] = {}
        self._seen: dict[int, int] = {}
        self.start()

    def start(self) -> None:
        """Call when the watching begins: nodes made until now are nobody's."""
        number = last_sequence_number()
        if number is not None:
            self._seen[threading.get_ident()] = number

    def locate(self) -> Place:
        """The place of the op that is being dispatched. Call it before the op runs."""
        node = current_autograd_node()
        phase, module, code, line, called = self._read_stack(sys._getframe(1), node is not None)
        if node is not None and phase == "backward" and code is None:
            place = self._of_node(node)
            if called:
                place = place._replace(module=module, note=None, again=True)
        else:
            file = code.co_filename if code is not None else None
            place = Place(phase, module, file, line, None, called and phase == "backward")
        number = self._new_node()
        if number is not None:
            self._remember(number, place)
        return place

    def pass_over(self) -> None:
        """Call in place of `locate` for an op that needs no place itself: its node may."""
        if self._new_node() is not None:
            self.locate()

    def _read_stack(
        self, frame: FrameType | None, in_backward: bool
    ) -> tuple[str, str | None, CodeType | None, int | None, bool]:
        """(phase, module, code and line of the user's, whether a module is being called)."""
        code: CodeType | None = None
        line: int | None = None
        calls: list[FrameType] = []
        optimizer = False
        while frame is not None:
            known = self._kinds.get(id(frame.f_code))
            if known is None:
                known = self._kinds[id(frame.f_code)] = _kind(frame.f_code), frame.f_code
            kind = known[0]
            if kind == "user":
                if code is None:
                    code, line = frame.f_code, frame.f_lineno
            elif kind == "module":
                calls.append(frame)
                if code is not None and self._path(frame) is not None:
                    break
            elif kind == "optimizer":
                # A module called from inside of a step belongs to a closure: that is forward again.
                optimizer = optimizer or not calls
            elif kind == "engine":
                if in_backward:
                    break
                # No node is known (a callback at the end of the pass): the line that started it.
                in_backward = True
            frame = frame.f_back
        phase = "optimizer" if optimizer else "backward" if in_backward else "forward"
        return phase, self._module(calls), code, line, bool(calls)

    def _module(self, calls: list[FrameType]) -> str | None:
        """Path of the innermost module that is known; of an unknown model, the outermost one counts
        as the root and gives its class name."""
        for call in calls:
            path = self._path(call)
            if path is not None:
                return path
        if not calls or self._names.of_root(calls[-1].f_locals["self"]) is None:
            return None
        return self._module(calls)

    def _path(self, call: FrameType) -> str | None:
        return self._names.path(call.f_locals["self"])

    def _of_node(self, node: Any) -> Place:
        name = node.name()
        if name == "torch::autograd::AccumulateGrad":
            return self._of_gradient(node.variable)
        number = node._sequence_nr()
        found = {made[number] for made in self._made.values() if number in made}
        # Two threads may have made nodes of one number; a wrong line is worse than none.
        if len(found) != 1:
            return Place("backward", None, None, None, f"backward node {name}")
        return found.pop()._replace(phase="backward")

    def _of_gradient(self, parameter: torch.Tensor) -> Place:
        known = self._names.parameter(parameter)
        if known is not None:
            module, name = known
            return Place("backward", module, None, None, f"gradient of {name}")
        shape = "x".join(map(str, parameter.shape))
        return Place("backward", None, None, None, f"gradient of a leaf tensor [{shape}]")

    def _new_node(self) -> int | None:
        """Number of the node that was made since the last op of this thread, if there is one."""
        number = last_sequence_number()
        if number is None or number <= self._seen.setdefault(threading.get_ident(), number):
            return None
        return number

    def _remember(self, number: int, place: Place) -> None:
        """The first op after a node was made is the one that made it."""
        thread = threading.get_ident()
        self._seen[thread] = number
        made = self._made.setdefault(thread, {})
        made[number] = place
        if len(made) > _KEPT_NODES:
            del made[next(iter(made))]
