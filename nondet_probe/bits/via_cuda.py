"""Tensors on a CUDA device on their way into the kernels for GPUs: `via_c` for what lies there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nondet_probe.bits import via_c
from nondet_probe.bits.device import launch_blocks, library, on_device, stream_of, workspace

__all__ = ["digests", "hexes"]


def digests(tensors: Sequence[Tensor]) -> Tensor:
    """The digests of tensors on one device: int64, [tensors, 2], on that device.

    The two words of a digest are the two halves of its hex digits (`hexes`). Nothing is waited for:
    one launch for every 96 tensors on the device's current stream, which a graph may capture.
    Tensors that are not contiguous, or have a conj or neg bit, are copied first, on the device.

    Raises TypeError for a tensor whose bits cannot be read, ValueError for none at all or for more
    than one device, UsageError when this build has no kernels.
    """
    codes = [via_c.dtype_code(tensor) for tensor in tensors]
    if len({tensor.device for tensor in tensors}) != 1:
        devices = sorted({str(tensor.device) for tensor in tensors})
        raise ValueError(f"digests takes tensors on one device, got {devices}")
    first = tensors[0]
    plain = [tensor.detach().resolve_conj().resolve_neg().contiguous() for tensor in tensors]
    words = torch.empty((len(plain), 2), dtype=torch.int64, device=first.device)
    with on_device(first):
        room = workspace(first, library().digest_workspace())
        library().digest(
            codes,
            [tensor.data_ptr() for tensor in plain],
            [tensor.shape for tensor in plain],
            room.data_ptr(),
            words.data_ptr(),
            launch_blocks(),
            stream_of(first),
        )
    return words


def hexes(words: Tensor) -> list[str]:
    """What `digests` gave, as 32 hex digits each. This waits for the device."""
    return ["".join(f"{word & (2**64 - 1):016x}" for word in pair) for pair in words.tolist()]
