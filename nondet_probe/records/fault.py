"""A fault: one change of one element, its place and its moment in a training, as a JSON file.

    {"format": "nondet_probe.fault", "version": 1,
     "fault": {"site": "weight", "name": "conv1.weight", "index": 17, "change": "bit", "bit": 0}}

A file may come from anybody: all of it is checked when it is read, and so is every `Fault` made in
code. Whether the training has such a place is known only where the training is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nondet_probe.bits.flip import BitChange
from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.records.files import write_whole

__all__ = ["CHANGES", "MOMENTS", "SITES", "Fault", "Injection", "load_fault", "save_fault"]

FORMAT = "nondet_probe.fault"
VERSION = 1

MOMENTS = tuple(
    f"{side} {phase}"
    for phase in ("data", "forward", "backward", "optimizer")
    for side in ("before", "after")
)
"""When in a step: before or after one of its phases."""

SITES = {
    "weight": "before forward",
    "bias": "before forward",
    "buffer": "before forward",
    "input": "before forward",
    "output": "after forward",
    "gradient": "before optimizer",
    "optimizer": "before optimizer",
    "batch": "after data",
    "rng": "before data",
}
"""Of what a bit is changed -> at which moment, unless another is said."""

CHANGES = ("bit", "ulp up", "ulp down", "paper_stem")

# These are there at one moment only.
_FLEETING = ("input", "output", "batch")
_MOST_BYTES = 1 << 20
_MOST_STEPS, _MOST_ELEMENTS, _MOST_SEEDS = 1 << 53, 1 << 63, 1 << 64


@dataclass(frozen=True)
class Fault:
    """site: of SITES. name: of the tensor as a trace calls it, with or without the name of its
    model, or a pattern with * and ?; of activations (input, output) the module's path; None for all
    tensors of the site. index: flat, row-major, in the one tensor that `name` chooses; or seed and
    number: the number-th (from 0) of the draws without replacement that the seed gives over all
    elements of the chosen tensors. change: of CHANGES; bit: which one, 0 the least significant.
    step: from 0. when: of MOMENTS, "" for the site's own.

    change "paper_stem" draws element and direction of a step of one ulp with the seed as Summers
    and Dinneen's code does, in the weight `name`, or else in the first with two dimensions.

    Raises UsageError for what no training can have.
    """

    site: str
    name: str | None = None
    index: int | None = None
    seed: int | None = None
    number: int = 0
    change: str = "bit"
    bit: int | None = None
    step: int = 0
    when: str = ""

    def __post_init__(self) -> None:
        _one_of("site", self.site, SITES)
        _one_of("change", self.change, CHANGES)
        if self.when == "":
            object.__setattr__(self, "when", SITES[self.site])
        _one_of("when", self.when, MOMENTS)
        if self.site in _FLEETING and self.when != SITES[self.site]:
            raise UsageError(
                f"when={self.when!r}: site {self.site!r} is there {SITES[self.site]} only"
            )
        if self.name is not None and not isinstance(self.name, str):
            raise UsageError(f"name={self.name!r}: a text is needed, or nothing for all")
        _number("step", self.step, _MOST_STEPS)
        _number("number", self.number, _MOST_ELEMENTS)
        self._check_place()
        self._check_change()

    def _check_place(self) -> None:
        if (self.index is None) == (self.seed is None):
            raise UsageError(
                "either index (which element) or seed (the element is drawn) is needed, "
                + ("not both" if self.seed is not None else "and neither is given")
            )
        if self.index is not None:
            _number("index", self.index, _MOST_ELEMENTS)
            if self.number:
                raise UsageError(f"number={self.number}: of draws by seed, and index is given")
        if self.seed is not None:
            _number("seed", self.seed, _MOST_SEEDS)

    def _check_change(self) -> None:
        if self.change == "bit":
            if self.bit is None:
                raise UsageError("bit is missing: which one is to be flipped, 0 the lowest")
            _number("bit", self.bit, 64)
        elif self.bit is not None:
            raise UsageError(f"bit={self.bit!r}: with change {self.change!r} no bit is chosen")
        if self.change == "paper_stem" and (
            self.site != "weight" or self.seed is None or self.number
        ):
            raise UsageError(
                "change 'paper_stem' draws with a seed of its own in a weight: site 'weight' and "
                "seed are needed, index and number cannot be chosen"
            )

    def __str__(self) -> str:
        what = f"bit {self.bit}" if self.change == "bit" else self.change
        where = self.site if self.name is None else f"{self.site} {self.name or 'of the model'}"
        place = (
            f"[{self.index}]"
            if self.index is not None
            else f" (drawn by seed {self.seed}, number {self.number})"
        )
        return f"{what} of {where}{place}, step {self.step}, {self.when}"


@dataclass
class Injection:
    """A fault that a run was given. change: what became of it; None as long as nothing was
    changed."""

    fault: Fault
    change: BitChange | None = None

    def __str__(self) -> str:
        fault, change = self.fault, self.change
        if change is None:
            return f"a fault was asked for and nothing was changed: {fault}"
        what = f"bit {change.bit}" if change.bit is not None else "one ulp"
        return (
            f"a fault was injected at step {fault.step}, {fault.when}: {what} of {fault.site} "
            f"{change.name}[{change.index}], {change.dtype}, {change.before} -> {change.after}"
        )


def load_fault(path: Path) -> Fault:
    """Read a fault file. Raises UsageError, naming the file and what is wrong with it."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{path} has more than {_MOST_BYTES} bytes: that is no fault")
    try:
        document = json.loads(content, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsageError(f"{path} is not of format {FORMAT!r}")
    if document.get("version") != VERSION or isinstance(document["version"], bool):
        raise UsageError(
            f"{path} has version {document.get('version')!r}; this nondet_probe reads {VERSION}"
        )
    try:
        for name in document:
            _one_of("field", name, ("format", "version", "fault"))
        return _fault(document.get("fault"))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def save_fault(fault: Fault, path: Path) -> None:
    """Write a fault file. UsageError where there is something, or it cannot be written."""
    if path.exists():
        raise UsageError(f"{path} exists; nothing is ever overwritten. Name another one")
    document = {"format": FORMAT, "version": VERSION, "fault": asdict(fault)}
    try:
        write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _fault(given: Any) -> Fault:
    if not isinstance(given, dict):
        raise UsageError(f"fault: an object is needed, not {given!r:.100}")
    for name in given:
        _one_of("field of a fault", name, [item.name for item in fields(Fault)])
    if "site" not in given:
        raise UsageError(f"site is missing; one of {', '.join(SITES)}")
    return Fault(**given)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice in one object")
    return found


def _one_of(what: str, given: Any, known: Any) -> None:
    if not isinstance(given, str) or given not in known:
        raise unknown_name(what, given if isinstance(given, str) else repr(given)[:100], known)


def _number(what: str, given: Any, end: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < end:
        raise UsageError(f"{what}={given!r:.100}: a whole number from 0 to {end - 1} is needed")
