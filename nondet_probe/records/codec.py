"""Dataclasses to JSON and back, strictly: nothing unknown, nothing missing, NaN and inf kept.

JSON has no NaN and no infinity: such a float becomes `{"float": "nan"}`, `{"float": "inf"}` or
`{"float": "-inf"}`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from nondet_probe.errors import RecordError

__all__ = ["decode", "encode"]


def encode(value: Any, *, skip: frozenset[str] = frozenset()) -> Any:
    """`value` as JSON types. Fields of dataclasses named in `skip` are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value) if item.name not in skip]
        return {name: encode(getattr(value, name), skip=skip) for name in names}
    if isinstance(value, Mapping):
        return {str(key): encode(item, skip=skip) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item, skip=skip) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot store a {type(value).__name__} in a record: {value!r}")


def decode(kind: Any, data: Any, where: str = "record", skip: frozenset[str] = frozenset()) -> Any:
    """`data` as `kind`, a dataclass or a type made of JSON's types.

    Raises RecordError naming the place (`where` is its path) when `data` does not have that shape.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, data, where, skip)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        (only,) = [item for item in arguments if item is not type(None)]
        return decode(only, data, where, skip)
    if origin in (list, tuple) and isinstance(data, list):
        if origin is tuple and len(data) != len(arguments):
            raise RecordError(f"{where}: {len(data)} items where {len(arguments)} are due")
        kinds = arguments if origin is tuple else arguments * len(data)
        return origin(
            decode(item_kind, item, f"{where}[{i}]", skip)
            for i, (item_kind, item) in enumerate(zip(kinds, data, strict=True))
        )
    if origin is dict and isinstance(data, dict):
        return {
            key: decode(arguments[1], item, f"{where}.{key}", skip) for key, item in data.items()
        }
    if kind is Any:
        return _decode_any(data)
    if kind is float:
        if isinstance(data, dict) and data.keys() == {"float"}:
            return float(data["float"])
        if isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
    elif isinstance(kind, type) and type(data) is kind:
        return data
    raise RecordError(f"{where}: a {type(data).__name__} where {_name(kind)} is due: {data!r}")


def _decode_dataclass(kind: type, data: Any, where: str, skip: frozenset[str]) -> Any:
    if not isinstance(data, dict):
        raise RecordError(f"{where}: a {type(data).__name__} where {kind.__name__} is due")
    hints = typing.get_type_hints(kind)
    known = {item.name for item in dataclasses.fields(kind)} - skip
    if extra := data.keys() - known:
        raise RecordError(f"{where}: {kind.__name__} has no field {', '.join(sorted(extra))}")
    if missing := known - data.keys():
        raise RecordError(
            f"{where}: field {', '.join(sorted(missing))} of {kind.__name__} is missing"
        )
    return kind(
        **{name: decode(hints[name], data[name], f"{where}.{name}", skip) for name in known}
    )


def _decode_any(data: Any) -> Any:
    if isinstance(data, dict):
        if data.keys() == {"float"}:
            return float(data["float"])
        return {key: _decode_any(item) for key, item in data.items()}
    if isinstance(data, list):
        return [_decode_any(item) for item in data]
    return data


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
