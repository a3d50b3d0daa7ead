"""Run directories on disk: `record.json` for all that is words and numbers, `arrays.safetensors`.

Both are written to a temporary name and moved into place, the JSON last, and it holds the SHA-256
of the arrays: a directory with a `record.json` is a whole record, or loading it says what is wrong.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nondet_probe.errors import RecordError, UsageError
from nondet_probe.records.codec import decode, encode
from nondet_probe.records.files import write_whole
from nondet_probe.records.schema import RunRecord

__all__ = ["ARRAYS_FILE", "FORMAT", "RECORD_FILE", "VERSION", "load_run", "save_run", "to_json"]

FORMAT = "nondet_probe.run"
VERSION = 4
RECORD_FILE = "record.json"
ARRAYS_FILE = "arrays.safetensors"

# Fields that go to the arrays file, as "<part>/<name>".
_ARRAY_FIELDS = frozenset({"series"})
_PARTS = ("twin", "twin_fixed")


_OF_TWINS: dict[str, Any] = {
    "tensors": [],
    "fate": None,
    "predictions": None,
    "no_predictions": "not recorded by this version",
}
_OF_SEVERAL: dict[str, Any] = {
    "fault": None,
    "twins": [],
    "conditions": [],
    "no_conditions": "not recorded by this version",
    "onset": [],
}
# What each version added to the parts of a record, and what an older record says by its silence.
_ADDED: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "rerun": {"suspect_k": None, "of_script": False, "classes": []},
        "cost": {"ops": [], "fill_needed": None, "fill_reason": ""},
    },
    3: {"twin": _OF_TWINS, "twin_fixed": _OF_TWINS},
    4: {"twin": _OF_SEVERAL, "twin_fixed": _OF_SEVERAL},
}


def to_json(record: RunRecord) -> dict[str, Any]:
    """The record without its arrays, as JSON types."""
    data: dict[str, Any] = encode(record, skip=_ARRAY_FIELDS)
    return data


def save_run(record: RunRecord, directory: Path) -> None:
    """Write `record` into `directory` (made if missing); replaces an older record there at once."""
    from safetensors.numpy import save

    arrays: dict[str, npt.NDArray[Any]] = {}
    for part in _PARTS:
        twin = getattr(record, part)
        if twin is not None:
            for name, values in twin.series.items():
                arrays[f"{part}/{name}"] = np.ascontiguousarray(values)
    packed = save(arrays)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "arrays_sha256": hashlib.sha256(packed).hexdigest(),
        "record": to_json(record),
    }
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / ARRAYS_FILE, packed)
    write_whole(directory / RECORD_FILE, text.encode())


def load_run(directory: Path) -> RunRecord:
    """The record in `directory`.

    Raises RecordError when it is absent, truncated, altered, or of an unknown format or version.
    """
    from safetensors.numpy import load

    path = directory / RECORD_FILE
    if not path.exists():
        raise RecordError(f"{directory} holds no {RECORD_FILE}: it is not a run directory")
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path} is truncated or not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError(f"{path} is not of format {FORMAT!r}")
    version = document.get("version")
    if not isinstance(version, int) or version not in range(1, VERSION + 1):
        raise RecordError(
            f"{path} has version {version!r}; this nondet_probe reads versions 1 to {VERSION}. "
            "Use the nondet_probe that wrote it, or a newer one."
        )
    for field in ("arrays_sha256", "record"):
        if field not in document:
            raise RecordError(f"{path}: field {field} is missing")
    try:
        packed = (directory / ARRAYS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{directory} holds no {ARRAYS_FILE}, which its record needs") from error
    if hashlib.sha256(packed).hexdigest() != document["arrays_sha256"]:
        raise RecordError(
            f"{directory / ARRAYS_FILE} is truncated, altered or of another run: "
            "its SHA-256 is not the recorded one"
        )
    _upgrade(document["record"], version)
    try:
        record: RunRecord = decode(RunRecord, document["record"], skip=_ARRAY_FIELDS)
    except UsageError as error:
        raise RecordError(f"{path}: a fault that cannot be: {error}") from error
    for name, values in load(packed).items():
        part, _, series = name.partition("/")
        getattr(record, part).series[series] = values
    return record


def _upgrade(data: Any, version: int) -> None:
    """To the present version, in place; what has no such shape is left for `decode` to refuse."""
    if not isinstance(data, dict):
        return
    if version == 1:
        data.setdefault("audit", None)
    for later in range(version + 1, VERSION + 1):
        for part, fields in _ADDED[later].items():
            found = data.get(part)
            if isinstance(found, dict):
                for name, value in fields.items():
                    found.setdefault(name, value)
