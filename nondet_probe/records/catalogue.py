"""A table of how ops were measured to behave, one JSON file that grows: no row is ever lost."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nondet_probe.errors import RecordError, UsageError
from nondet_probe.records.audit import OpStatus
from nondet_probe.records.codec import decode, encode
from nondet_probe.records.schema import AuditRecord

__all__ = ["FORMAT", "VERSION", "Row", "check_catalogue", "load_catalogue", "merge_into", "rows_of"]

FORMAT = "nondet_probe.catalogue"
VERSION = 1


@dataclass(frozen=True)
class Row:
    """One class of op calls on one machine with one set of versions.

    op, shapes, dtype, declared, other_threads, with_batch, unwritten, switch: as in `OpStatus`.
    device: "cpu" or the name of the GPU; processor: of the host; torch, nondet_probe: versions;
    threads: at which it was executed; thread_counts: that were tried. calls, executions, differing:
    summed over all that was merged. status: "repeatable" or "nondeterministic".
    """

    op: str
    shapes: str
    dtype: str
    device: str
    processor: str
    torch: str
    nondet_probe: str
    threads: int
    thread_counts: list[int]
    status: str
    calls: int
    executions: int
    differing: int
    declared: str | None
    other_threads: list[int] | None
    with_batch: bool | None
    unwritten: bool | None
    switch: str | None

    @property
    def key(self) -> tuple[object, ...]:
        """Rows with the same key are one."""
        return (
            self.op, self.shapes, self.dtype, self.device, self.processor, self.torch,
            self.nondet_probe, self.threads, tuple(self.thread_counts),
        )  # fmt: skip


def rows_of(audit: AuditRecord, environment: Mapping[str, Any]) -> list[Row]:
    """The rows of an audit; environment: of `nondet_probe.env.snapshot()`."""
    machine, versions = environment["machine"], environment["versions"]
    gpu = ", ".join(dict.fromkeys(machine["gpus"])) or "cuda"
    return [
        Row(
            **{name: getattr(row, name) for name in _SHARED},
            device=gpu if row.device == "cuda" else row.device,
            processor=machine["cpu"],
            torch=versions["torch"],
            nondet_probe=versions.get("nondet-probe", "unknown"),
            threads=audit.threads,
            thread_counts=audit.thread_counts,
            status="repeatable" if row.repeatable else "nondeterministic",
        )
        for row in audit.ops
    ]


_SHARED = ({field.name for field in fields(OpStatus)} & {field.name for field in fields(Row)}) - {
    "device"
}


def load_catalogue(path: Path) -> list[Row]:
    """The rows of `path`, in its order. Raises RecordError when it is no catalogue, or of a version
    that is not known."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path} is truncated or not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError(f"{path} is not of format {FORMAT!r}")
    if document.get("version") != VERSION:
        raise RecordError(
            f"{path} has version {document.get('version')!r}; this nondet_probe reads version "
            f"{VERSION}. Use the nondet_probe that wrote it, or a newer one."
        )
    rows: list[Row] = decode(list[Row], document.get("rows"), "rows")
    return rows


def check_catalogue(path: Path) -> None:
    """UsageError, before anything is measured, where rows could not be merged into `path`."""
    if not path.parent.is_dir():
        raise UsageError(f"--catalogue {path}: there is no directory {path.parent}")
    if path.exists():
        try:
            load_catalogue(path)
        except (RecordError, OSError) as error:
            raise UsageError(f"--catalogue: {error}; name another file") from error


def merge_into(path: Path, rows: Sequence[Row]) -> None:
    """Add `rows` to the catalogue in `path`, which is made if it is not there; rows of the same
    class, machine and versions become one. Written at once; a reader sees the old or the new."""
    merged = {row.key: row for row in (load_catalogue(path) if path.exists() else [])}
    for row in rows:
        known = merged.get(row.key)
        merged[row.key] = row if known is None else _joined(known, row)
    ordered = sorted(merged.values(), key=lambda row: repr(row.key))
    document = {"format": FORMAT, "version": VERSION, "rows": encode(ordered)}
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _joined(one: Row, other: Row) -> Row:
    """What either of them saw is true; what was asked in neither stays unknown."""
    differing = one.differing + other.differing
    return replace(
        other,
        calls=one.calls + other.calls,
        executions=one.executions + other.executions,
        differing=differing,
        status="nondeterministic" if differing else "repeatable",
        declared=other.declared or one.declared,
        other_threads=_both(one.other_threads, other.other_threads),
        with_batch=_either(one.with_batch, other.with_batch),
        unwritten=_either(one.unwritten, other.unwritten),
        switch=one.switch if one.switch == other.switch or other.switch is None else other.switch,
    )


def _either(one: bool | None, other: bool | None) -> bool | None:
    known = [value for value in (one, other) if value is not None]
    return any(known) if known else None


def _both(one: list[int] | None, other: list[int] | None) -> list[int] | None:
    if one is None or other is None:
        return one if other is None else other
    return sorted({*one, *other})
