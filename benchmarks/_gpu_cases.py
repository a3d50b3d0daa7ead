"""What is measured on a GPU: calls beside each other, at the sizes of `_gpu_goals`.

A case makes its inputs when it is asked for its calls, and they go with it. Calls are of the public
ops; where one needs a gradient, the forward pass is done before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch
from _cub import LEVELS, Cub
from _gpu_goals import COPY, DETERMINISTIC
from torch import Tensor
from torch.nn import functional

from nondet_probe import ops
from nondet_probe.bits import via_cuda
from nondet_probe.bits.digest import digests
from nondet_probe.env import deterministic_algorithms

__all__ = ["Case", "cases"]

Call = Callable[[], object]


@dataclass
class Case:
    """n: elements of the input; copied: its bytes; moved: those that a call has to read and write
    at least. missing: why some are not among the calls."""

    op: str
    dtype: str
    n: int
    copied: int
    moved: int
    calls: dict[str, Call]
    under: dict[str, Callable[[], AbstractContextManager[object]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def cases(
    device: torch.device, sizes: Mapping[str, int], cub: Cub | str
) -> Iterator[tuple[str, str, Callable[[], Case]]]:
    """Name, size and what makes the case: the small ones of all before the large ones."""
    for size, nbytes in sizes.items():
        make: dict[str, Callable[[torch.device, int], Case]] = {
            "sum float32": partial(_sum, dtype=torch.float32, cub=cub),
            "sum float64": partial(_sum, dtype=torch.float64, cub=cub),
            "index_add elements": partial(_index_add, "elements", 1, 1000),
            "index_add rows": partial(_index_add, "rows", 64, 100_000),
            "layer_norm backward": _layer_norm,
            "attention backward": _attention,
            "digest": _digest,
        }
        for name, one in make.items():
            yield name, size, partial(one, device, nbytes)


def _normal(
    device: torch.device, *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, dtype=dtype, device=device, generator=generator)


def _copied(x: Tensor) -> Call:
    target = torch.empty_like(x)
    return lambda: target.copy_(x)


def _backward(
    forward: Callable[[], Tensor], leaves: list[Tensor], slope: Tensor, calls: dict[str, Call],
    missing: dict[str, str], name: str,
) -> None:  # fmt: skip
    """Adds the backward pass of what `forward` computes to the calls, or why there is none."""
    try:
        result = forward()
    except Exception as error:  # whatever it is, it is this provider's answer
        missing[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return
    calls[name] = lambda: torch.autograd.grad(result, leaves, slope, retain_graph=True)


def _sum(device: torch.device, nbytes: int, *, dtype: torch.dtype, cub: Cub | str) -> Case:
    x = _normal(device, nbytes // dtype.itemsize, dtype=dtype)
    calls: dict[str, Call] = {COPY: _copied(x), "torch": x.sum}
    for variant in ("atomic", "two_pass", "fixed_order", "binned", "exact"):
        calls[variant] = partial(ops.sum, x, variant=variant)
    missing = {}
    for level in LEVELS:
        if isinstance(cub, str):
            missing[f"CUB {level}"] = cub
        else:
            calls[f"CUB {level}"] = partial(cub.sum, x, level)
    name = str(dtype).removeprefix("torch.")
    return Case("sum", name, x.numel(), x.nbytes, x.nbytes, calls, missing=missing)


def _index_add(what: str, width: int, places: int, device: torch.device, nbytes: int) -> Case:
    rows, shape = nbytes // 4 // width, () if width == 1 else (width,)
    source, table = _normal(device, rows, *shape), torch.zeros(places, *shape, device=device)
    generator = torch.Generator(device).manual_seed(9)
    index = torch.randint(places, (rows,), device=device, generator=generator)
    by_torch = partial(torch.index_add, table, 0, index, source)
    calls: dict[str, Call] = {COPY: _copied(source), "torch": by_torch, DETERMINISTIC: by_torch}
    add = partial(ops.index_add, table, 0, index, source)
    for variant in ("atomic", "ordered", "fixed_point", "exact"):
        calls[variant] = partial(add, variant=variant)
    for variant in ("atomic", "fixed_point"):
        calls[f"triton {variant}"] = partial(add, variant=variant, backend="triton")
    moved = source.nbytes + index.nbytes + 2 * table.nbytes
    under = {DETERMINISTIC: deterministic_algorithms}
    name, n = f"index_add {what}", source.numel()
    return Case(name, "float32", n, source.nbytes, moved, calls, under)


def _layer_norm(device: torch.device, nbytes: int) -> Case:
    columns = 1024
    x = _normal(device, nbytes // 4 // columns, columns).requires_grad_()
    weight, bias = (torch.ones(columns, device=device, requires_grad=True) for _ in range(2))
    slope = _normal(device, *x.shape, seed=1)
    given = (x, (columns,), weight, bias)
    forwards: dict[str, Callable[[], Tensor]] = {"torch": partial(functional.layer_norm, *given)}
    for variant in ("atomic", "two_pass", "fixed_order", "exact"):
        forwards[variant] = partial(ops.layer_norm, *given, variant=variant)
    for variant in ("atomic", "two_pass", "fixed_order"):
        forwards[f"triton {variant}"] = partial(
            ops.layer_norm, *given, variant=variant, backend="triton"
        )
    calls: dict[str, Call] = {COPY: _copied(slope)}
    missing: dict[str, str] = {}
    for name, forward in forwards.items():
        _backward(forward, [x, weight, bias], slope, calls, missing, name)
    return Case(
        "layer_norm backward", "float32", x.numel(), x.nbytes, 3 * x.nbytes, calls, missing=missing
    )


def _attention(device: torch.device, nbytes: int) -> Case:
    """nbytes: of queries, keys, values and the gradient of the result together."""
    length, width = 4096, 128
    heads = max(1, nbytes // 4 // (2 * length * width))
    if device.type == "cpu":  # where the tests look whether all of this is right
        length = 16
    query, key, value, slope = (
        _normal(device, heads, length, width, dtype=torch.bfloat16, seed=seed) for seed in range(4)
    )
    leaves = [one.requires_grad_() for one in (query, key, value)]
    forwards: dict[str, Callable[[], Tensor]] = {
        "torch": partial(functional.scaled_dot_product_attention, *leaves)
    }
    for variant in ("atomic", "semaphore_ordered", "split_buffers"):
        forwards[variant] = partial(ops.attention, *leaves, variant=variant, backend="triton")
    calls: dict[str, Call] = {COPY: _copied(slope)}
    missing: dict[str, str] = {}
    for name, forward in forwards.items():
        _backward(forward, leaves, slope, calls, missing, name)
    n, copied = slope.numel(), slope.nbytes
    return Case("attention backward", "bfloat16", n, copied, 8 * copied, calls, missing=missing)


def _digest(device: torch.device, nbytes: int) -> Case:
    """Parameters of layers 2048 wide: four matrices and two vectors in each."""
    parameters: list[Tensor] = []
    total = 0
    while total < nbytes:
        width = min(2048, max(1, int((nbytes // 16) ** 0.5)))
        layer = [*(_normal(device, width, width) for _ in range(4)), *_normal(device, 2, width)]
        parameters += layer
        total += sum(one.nbytes for one in layer)
    whole = torch.empty(total, dtype=torch.uint8, device=device)
    calls: dict[str, Call] = {
        COPY: _copied(whole),
        "digest": partial(via_cuda.digests, parameters),
        "digest and read": partial(digests, parameters),
    }
    return Case("digest", "float32", total // 4, total, total, calls)
