"""What is measured on a GPU: calls beside each other, and the ratios that bounds are set for.

A case makes its inputs when it is asked for its calls, and they go when it is done. Calls are of the
public ops; where one needs a gradient, the forward pass was done before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from _cub import LEVELS, Cub
from torch import Tensor

from nondet_probe import ops
from nondet_probe.bits import via_cuda
from nondet_probe.bits.digest import digests
from nondet_probe.env import deterministic_algorithms

__all__ = ["COPY", "SIZES", "Case", "Goal", "cases"]

SIZES = {"256 MB": 256 << 20, "4 GB": 4 << 30}
"""Bytes of the input."""
COPY = "device copy"
DETERMINISTIC = "torch deterministic"

Call = Callable[[], object]


@dataclass(frozen=True)
class Goal:
    """A bound on how many times as fast `provider` is as `other`; by_rate: in bytes a second, where
    the copy's rate counts what it reads and what it writes."""

    measure: str
    provider: str
    other: str
    at_least: float | None = None
    aim: float | None = None
    by_rate: bool = False


@dataclass
class Case:
    """n: elements of the input; moved: the bytes that a call has to move at least, by provider,
    "" for all that are not named. missing: why other providers are not there."""

    op: str
    dtype: str
    size: str
    n: int
    calls: dict[str, Call]
    goals: list[Goal]
    moved: dict[str, int]
    under: dict[str, Callable[[], AbstractContextManager[object]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def cases(
    device: torch.device, sizes: dict[str, int], cub: Cub | str
) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Names, and what makes the case of that name: the small ones of all before the large ones."""
    for size, nbytes in sizes.items():
        for dtype in (torch.float32, torch.float64):
            yield (
                f"sum {dtype}, {size}",
                lambda d=dtype, s=size, b=nbytes: _sum(device, s, b, d, cub),
            )
        for width, rows in ((1, 1000), (64, 100_000)):
            yield (
                f"index_add {width}, {size}",
                lambda w=width, r=rows, s=size, b=nbytes: _index_add(device, s, b, w, r),
            )
        yield f"layer_norm, {size}", lambda s=size, b=nbytes: _layer_norm(device, s, b)
        yield f"attention, {size}", lambda s=size, b=nbytes: _attention(device, s, b)
        yield f"digest, {size}", lambda s=size, b=nbytes: _digest(device, s, b)


def _normal(device: torch.device, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator(device).manual_seed(len(shape))
    return torch.randn(shape, dtype=dtype, device=device, generator=generator)


def _copied(x: Tensor) -> Call:
    target = torch.empty_like(x)
    return lambda: target.copy_(x)


def _sum(device: torch.device, size: str, nbytes: int, dtype: torch.dtype, cub: Cub | str) -> Case:
    x = _normal(device, nbytes // dtype.itemsize, dtype=dtype)
    calls: dict[str, Call] = {COPY: _copied(x), "torch": x.sum}
    for variant in ("atomic", "two_pass", "fixed_order", "binned", "exact"):
        calls[variant] = lambda v=variant: ops.sum(x, variant=v)
    missing = {}
    for level in LEVELS:
        name = f"CUB {level}"
        if isinstance(cub, str):
            missing[name] = cub
        else:
            calls[name] = lambda level=level: cub.sum(x, level)
    name = f"sum {str(dtype).removeprefix('torch.')}"
    goals = [
        Goal(f"`{name}` `{one}` to a device copy's rate", one, COPY, 0.9, 0.95, by_rate=True)
        for one in ("two_pass", "fixed_order")
    ]
    goals += [
        Goal(f"`{name}` `exact` to a device copy's rate", "exact", COPY, by_rate=True),
        Goal(f"`{name}` `exact` to `two_pass`", "exact", "two_pass", 0.9, 0.97),
        Goal(f"`{name}` `exact` to CUB `gpu_to_gpu`", "exact", "CUB gpu_to_gpu", 1.5, 2),
        Goal(f"`{name}` `two_pass` to CUB `run_to_run`", "two_pass", "CUB run_to_run"),
    ]
    moved = {COPY: 2 * x.nbytes, "": x.nbytes}
    return Case("sum", str(dtype), size, x.numel(), calls, goals, moved, missing=missing)


def _index_add(device: torch.device, size: str, nbytes: int, width: int, places: int) -> Case:
    rows = nbytes // 4 // width
    shape = (width,) if width > 1 else ()
    source, table = _normal(device, rows, *shape), torch.zeros(places, *shape, device=device)
    index = torch.randint(
        places, (rows,), device=device, generator=torch.Generator(device).manual_seed(9)
    )

    def by_torch() -> Tensor:
        return torch.index_add(table, 0, index, source)

    calls: dict[str, Call] = {COPY: _copied(source), "torch": by_torch, DETERMINISTIC: by_torch}
    for variant in ("atomic", "ordered", "fixed_point", "exact"):
        calls[variant] = lambda v=variant: ops.index_add(table, 0, index, source, variant=v)
    for variant in ("atomic", "fixed_point"):
        calls[f"triton {variant}"] = lambda v=variant: ops.index_add(
            table, 0, index, source, variant=v, backend="triton"
        )
    what = f"`index_add` of {'rows of 64' if width > 1 else 'elements'} into {places:,}"
    goals = [
        Goal(f"{what}, `fixed_point` to `atomic`", "fixed_point", "atomic", 0.7, 1.0),
        Goal(
            f"{what}, `fixed_point` to torch's deterministic", "fixed_point", DETERMINISTIC, 5, 10
        ),
        Goal(f"{what}, `exact` to `atomic`", "exact", "atomic"),
    ]
    moved = {COPY: 2 * source.nbytes, "": source.nbytes + index.nbytes + 2 * table.nbytes}
    name = f"index_add width={width}"
    under = {DETERMINISTIC: deterministic_algorithms}
    return Case(name, "float32", size, source.numel(), calls, goals, moved, under)


def _layer_norm(device: torch.device, size: str, nbytes: int) -> Case:
    columns = 1024
    x = _normal(device, nbytes // 4 // columns, columns).requires_grad_()
    weight, bias = (torch.ones(columns, device=device, requires_grad=True) for _ in range(2))
    slope = _normal(device, *x.shape)

    def backward(forward: Callable[[], Tensor]) -> Call:
        result = forward()
        return lambda: torch.autograd.grad(result, (x, weight, bias), slope, retain_graph=True)

    calls: dict[str, Call] = {
        COPY: _copied(slope),
        "torch": backward(lambda: torch.nn.functional.layer_norm(x, (columns,), weight, bias)),
    }
    missing = {}
    for backend in ("cuda", "triton"):
        for variant in (
            "atomic",
            "two_pass",
            "fixed_order",
            *(["exact"] if backend == "cuda" else []),
        ):
            name = variant if backend == "cuda" else f"triton {variant}"
            try:
                calls[name] = backward(
                    lambda v=variant, b=backend: ops.layer_norm(
                        x, (columns,), weight, bias, variant=v, backend=b
                    )
                )
            except (TypeError, ValueError, RuntimeError) as error:
                missing[name] = str(error).partition("\n")[0]
    goals = [
        Goal("`layer_norm` backward `fixed_order` to `atomic`", "fixed_order", "atomic", 1.0, 3),
        Goal("`layer_norm` backward `fixed_order` to torch", "fixed_order", "torch"),
    ]
    moved = {COPY: 2 * slope.nbytes, "": 3 * x.nbytes}
    return Case(
        "layer_norm backward", "float32", size, x.numel(), calls, goals, moved, missing=missing
    )


def _attention(device: torch.device, size: str, nbytes: int) -> Case:
    """nbytes: of queries, keys, values and the result's gradient together."""
    length, width = 4096, 128
    heads = max(1, nbytes // 4 // (2 * length * width))
    if device.type == "cpu":
        heads, length = 1, 32
    given = [_normal(device, heads, length, width, dtype=torch.bfloat16) for _ in range(4)]
    leaves, slope = [one.requires_grad_() for one in given[:3]], given[3]

    def backward(forward: Callable[[], Tensor]) -> Call:
        result = forward()
        return lambda: torch.autograd.grad(result, leaves, slope, retain_graph=True)

    calls: dict[str, Call] = {
        COPY: _copied(slope),
        "torch": backward(lambda: torch.nn.functional.scaled_dot_product_attention(*leaves)),
    }
    missing = {}
    for variant in ("atomic", "semaphore_ordered", "split_buffers"):
        try:
            calls[variant] = backward(
                lambda v=variant: ops.attention(*leaves, variant=v, backend="triton")
            )
        except (TypeError, ValueError, RuntimeError) as error:
            missing[variant] = str(error).partition("\n")[0]
    goals = [
        Goal(
            f"attention backward `{one}` to `atomic`",
            one,
            "atomic",
            *((0.82, 0.9) if one == "semaphore_ordered" else ()),
        )
        for one in ("semaphore_ordered", "split_buffers")
    ]
    moved = {COPY: 2 * slope.nbytes, "": 7 * slope.nbytes}
    name = "attention backward"
    return Case(name, "bfloat16", size, slope.numel(), calls, goals, moved, missing=missing)


def _digest(device: torch.device, size: str, nbytes: int) -> Case:
    """Parameters of a transformer 2048 wide: four matrices and two vectors a layer."""
    width, parameters, total = 2048, [], 0
    if device.type == "cpu":
        width = 16
    while total < nbytes:
        layer = [_normal(device, width, width) for _ in range(4)]
        layer += [_normal(device, width) for _ in range(2)]
        parameters += layer
        total += sum(one.nbytes for one in layer)
    whole = torch.empty(total, dtype=torch.uint8, device=device)
    calls: dict[str, Call] = {
        COPY: _copied(whole),
        "digest": lambda: via_cuda.digests(parameters),
        "digest and read": lambda: digests(parameters),
    }
    goals = [
        Goal("`digest` of parameters to a device copy's rate", "digest", COPY, 0.85, 0.95, True),
        Goal("the same, with reading them back", "digest and read", COPY, by_rate=True),
    ]
    moved = {COPY: 2 * total, "": total}
    return Case("digest", "float32", size, total // 4, calls, goals, moved)
