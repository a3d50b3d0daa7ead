"""What an op was given and gave, into files: tensors as safetensors, all else as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nondet_probe.probe.replay import Call

__all__ = ["ARGUMENTS_FILE", "TENSORS_FILE", "keep"]

TENSORS_FILE = "tensors.safetensors"
ARGUMENTS_FILE = "arguments.json"

_BUDGET = 256 << 20
"""Bytes of tensors that are kept at most."""


def keep(call: Call, gave: Sequence[Any], folder: Path) -> list[str]:
    """Write the operands of a call, as they were before it, and its results into `folder`, which is
    made. Returns what could not be kept, as sentences without a full stop."""
    from safetensors.torch import save_file

    args, kwargs = call.arguments()
    tensors: dict[str, Tensor] = {}
    told: dict[str, Any] = {"op": call.plan.name, "arguments": {}}
    for name, value in _flat([*enumerate(args), *kwargs.items()], "input"):
        if isinstance(value, Tensor):
            tensors[name] = value
        else:
            told["arguments"][name] = repr(value)
    for name, value in _flat(enumerate(gave), "output"):
        if isinstance(value, Tensor):
            tensors[name] = value
        else:
            told["arguments"][name] = repr(value)
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > _BUDGET:
        return [
            f"the tensors of the op: they take {size >> 20} MiB, and {_BUDGET >> 20} are kept at "
            "most"
        ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plain = {name: _plain(tensor) for name, tensor in tensors.items()}
        save_file(plain, folder / TENSORS_FILE)
        text = json.dumps(told, indent=1) + "\n"
        (folder / ARGUMENTS_FILE).write_text(text, encoding="utf-8")
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return [f"the tensors of the op: {type(error).__name__}: {lines[0]}"]
    return []


def _flat(items: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, value in items:
        full = f"{name}.{key}"
        if isinstance(value, list | tuple):
            yield from _flat(enumerate(value), full)
        else:
            yield full, value


def _plain(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, in order."""
    copy = tensor.detach().resolve_conj().resolve_neg().cpu()
    return copy.clone(memory_format=torch.contiguous_format)
