"""The scatter core and its indices."""

from __future__ import annotations

import torch
from torch import Tensor

from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.via_cuda.library import (
    launch_blocks,
    library,
    no_threads,
    not_captured,
    on_device,
    same_device,
    stream_of,
    workspace,
)

__all__ = ["checked_indices", "first_outside", "position_of", "scatter_rows"]

_TAKEN = ("atomic", "ordered", "fixed_point", "exact")
_MOST = 2**31 - 1

_Added = tuple[int, int, int, int, int, int, int]
_Meant = tuple[bool, bool, tuple[int, int, int]]


def scatter_rows(
    out: Tensor,
    destinations: int,
    index: Tensor,
    source: Tensor,
    variant: str,
    threads: int | None,
    wrap: bool = False,
    strict: bool = False,
    grid: tuple[int, int, int] = (0, 1, 1),
) -> None:
    """out[index[i], :] += source[i, :] for every i, in place, by one variant of the scatter core.

    Everything is contiguous; out, of any shape, holds the initial values; wrap, strict, grid and
    IndexError as in `via_c.scatter_rows`. That indices are in range is known only after the
    launches, which this waits for: UsageError while a graph is captured. UsageError also for more
    than 2^31 - 1 rows or destinations in "ordered", and in "exact" where that has to sort as well.
    """
    no_threads(threads)
    if variant not in _TAKEN:
        raise UsageError(
            f"scatter variant {variant!r} has no kernel for CUDA; taken are {', '.join(_TAKEN)}"
        )
    same_device("scatter", out, index, source)
    not_captured("scatter", out)
    n = index.numel()
    columns = out.numel() // destinations if destinations else 0
    state = torch.zeros(2, dtype=torch.int64, device=out.device)
    added = (
        CODES[out.dtype],
        out.data_ptr(),
        index.data_ptr(),
        source.data_ptr(),
        n,
        columns,
        destinations,
    )
    meant = (wrap, strict, grid)
    with on_device(out):
        if variant == "ordered":
            keys, rows = _sorted(added, meant, state)
            memory = workspace(out, library().scatter_ordered_workspace(added, meant))
            library().scatter_ordered(
                added,
                meant,
                keys.data_ptr(),
                rows.data_ptr(),
                memory.data_ptr(),
                launch_blocks(),
                stream_of(out),
            )
        else:
            memory = workspace(out, library().scatter_workspace(variant, added, meant))
            library().scatter(
                variant,
                added,
                meant,
                state.data_ptr(),
                memory.data_ptr(),
                launch_blocks(),
                stream_of(out),
            )
        bad, spilled = state.tolist()
        at = position_of(bad)
        if at >= 0:
            raise IndexError(
                f"index {index.view(-1)[at].item()} at position {at} is out of range for "
                f"{grid[0] or destinations} rows"
            )
        if spilled:
            keys, rows = _sorted(added, meant, state)
            library().scatter_spilled(
                added,
                meant,
                keys.data_ptr(),
                rows.data_ptr(),
                memory.data_ptr(),
                launch_blocks(),
                stream_of(out),
            )


def position_of(noted: int) -> int:
    """What the kernels note of the first bad number, as its position; -1 for none."""
    return 2**63 - 1 - noted if noted else -1


def _sorted(added: _Added, meant: _Meant, state: Tensor) -> tuple[Tensor, Tensor]:
    """Destinations in rising order, int32, and the row of each; rows of one destination in their
    order: torch's radix sort, as a stable sort has but one result."""
    n, destinations = added[4], added[6]
    if max(n, destinations) > _MOST:
        raise UsageError(
            f"scatter sorts at most {_MOST} rows and destinations on a GPU, got {n} and "
            f"{destinations}"
        )
    keys = torch.empty(n, dtype=torch.int32, device=state.device)
    library().scatter_keys(
        added, meant, state.data_ptr(), keys.data_ptr(), launch_blocks(), stream_of(state)
    )
    found = torch.sort(keys, stable=True)
    return found.values, found.indices


def checked_indices(index: Tensor, size: int, op: str, *, wrap: bool = False) -> Tensor:
    """The index, of any shape, as contiguous int64 in [0, size); as `via_c.checked_indices`.

    Waits for the GPU: UsageError while a graph is captured.
    """
    index = index.long().contiguous()
    wrapped = torch.empty_like(index) if wrap else index
    bad = first_outside(op, index, -size if wrap else 0, size, wrapped if wrap else None)
    if bad >= 0:
        raise IndexError(
            f"{op}: index {index.view(-1)[bad].item()} at position {bad} is out of range for "
            f"size {size}"
        )
    return wrapped


def first_outside(op: str, index: Tensor, low: int, high: int, wrapped: Tensor | None) -> int:
    """The position of the first of these contiguous int64 that is not in [low, high); -1 for none.
    wrapped takes the indices, the negative ones with `high` added. Waits for the GPU: UsageError,
    in the name of `op`, while a graph is captured."""
    not_captured(op, index)
    bad = torch.zeros(1, dtype=torch.int64, device=index.device)
    with on_device(index):
        library().check_indices(
            index.data_ptr(),
            index.numel(),
            low,
            high,
            0 if wrapped is None else wrapped.data_ptr(),
            bad.data_ptr(),
            launch_blocks(),
            stream_of(index),
        )
    return position_of(int(bad.item()))
