"""Sums over dimensions and of strided tensors: the bits are those of the same elements in a row."""

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import bits_of, from_bits, normal, random_bits
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops import Guarantee, sum_ref, variants
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops.rational import FORMATS

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("sum")]
ORDERED = [v.name for v in variants("sum") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]
RUN_TO_RUN = [*ORDERED, "two_pass"]
ISAS = _C.available_isas()

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1),
    "permuted": lambda x: x.permute(1, 2, 0),
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "a slice": lambda x: x[1:, :, 3:],
    "expanded": lambda x: x[:, :1].expand(-1, 5, -1),
    "expanded outside": lambda x: x[0].expand(4, -1, -1),
}
DIMS = [None, 0, 1, 2, -1, (0, 1), (0, 2), (1, 2), (2, 0, 1), ()]


def in_rows(x: Tensor, dim: int | tuple[int, ...] | None) -> list[Tensor]:
    dims = range(x.ndim) if dim in (None, ()) else np.atleast_1d(dim) % x.ndim
    kept = [one for one in range(x.ndim) if one not in dims]
    ordered = x.permute(*kept, *sorted(map(int, dims)))
    rows = ordered.shape[: len(kept)].numel()
    return list(ordered.reshape(rows, -1).contiguous())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_bits_of_rows(
    layout: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = LAYOUTS[layout](normal(5 * 9 * 66, dtype, 1).reshape(5, 9, 66))
    for number, dim in enumerate(DIMS):
        monkeypatch.setenv("NONDET_PROBE_ISA", ISAS[number % len(ISAS)])
        rows = in_rows(x, dim)
        result = sum_all(x, dim)
        assert bits_of(result) == bits_of(sum_ref(x, dim)), dim
        assert result.shape == torch.sum(x, dim).shape
        for variant in RUN_TO_RUN:
            expected = [bits_of(sum_all(row, variant=variant, threads=2))[0] for row in rows]
            for keepdim in (False, True):
                result = sum_all(x, dim, keepdim, variant=variant, threads=2)
                assert bits_of(result) == expected, (variant, dim)
                assert result.shape == torch.sum(x, dim, keepdim).shape


# Rows and columns on both sides of the chunk, the lanes, the vectors and the widest tile.
MATRICES = [
    (1, 64),
    (63, 17),
    (65, 33),
    (300, 1000),
    (4096, 16),
    (4097, 40),
    (9000, 65),
    (70, 5000),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_columns_are_rows(isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    rng = np.random.default_rng(5)
    for rows, columns in MATRICES[:: 1 if isa == ISAS[-1] else 2]:
        x = torch.from_numpy(rng.standard_normal((rows, columns + 3))).to(dtype)
        for matrix in (x, x[:, 2:-1], x[: rows // 2 * 2].reshape(2, -1, x.shape[1])):
            flipped = matrix.transpose(-1, -2).contiguous()
            for variant in RUN_TO_RUN:
                expected = bits_of(sum_all(flipped, -1, variant=variant, threads=1))
                assert bits_of(sum_all(matrix, -2, variant=variant, threads=1)) == expected, (
                    variant,
                    matrix.shape,
                )


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_of_every_kind_of_number(dtype: torch.dtype) -> None:
    """One matrix whose blocks take every way of the exact kernel, and specials, side by side."""
    form = FORMATS[dtype]
    rng = np.random.default_rng(6)
    top = (form.infinity >> form.fraction_bits) - 1
    blocks = [
        normal(300 * 9, dtype, 1),
        random_bits(300 * 9, dtype, rng, 0, top),
        random_bits(300 * 9, dtype, rng, max(top // 2 - 30, 1), top // 2 + 30),
        torch.zeros(300 * 9, dtype=dtype),
        from_bits([form.sign] * 300 * 9, dtype),
        from_bits([1, form.sign | 1] * 150 * 9, dtype),
        from_bits([form.infinity - 1] * 2700, dtype),
    ]
    x = torch.cat([block.reshape(300, 9) for block in blocks], 1)
    special = x.clone()
    special[7, 0], special[8, 0] = float("inf"), 1.0
    special[9, 1], special[200, 1] = float("inf"), float("-inf")
    special[11, 12] = float("nan")
    stacked = torch.cat([x, special, normal(4000 * 63, dtype, 2).reshape(4000, 63), x])
    for matrix in (x, special, stacked):
        expected = bits_of(sum_ref(matrix, 0))
        for threads in (1, 2, 3):
            assert bits_of(sum_all(matrix, 0, threads=threads)) == expected
        assert bits_of(sum_all(matrix.t().contiguous(), 1)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(20_000, 70), (300, 9000), (5, 4000, 64)])
def test_any_number_of_threads_gives_the_same_bits(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = torch.from_numpy(np.random.default_rng(7).standard_normal(shape)).to(dtype)
    for dim in (-2, -1, (0, -1)):
        for variant in ORDERED:
            expected = bits_of(sum_all(x, dim, variant=variant, threads=1))
            for threads in (2, 3, 8):
                assert bits_of(sum_all(x, dim, variant=variant, threads=threads)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_by_atomic_are_seen_to_vary(dtype: torch.dtype) -> None:
    x = torch.from_numpy(np.random.default_rng(8).standard_normal((20_000, 64))).to(dtype)
    x = x.repeat(10, 1)
    seen = set()
    for _ in range(300):
        seen.add(tuple(bits_of(sum_all(x, 0, variant="atomic", threads=2))))
        if len(seen) > 1:
            break
    assert len(seen) > 1, f"on {len(os.sched_getaffinity(0))} processors"


def test_more_than_2_to_the_31_elements_are_read_where_they_lie() -> None:
    count = (1 << 31) + 12_345
    one = torch.tensor([1.0], dtype=torch.float16)
    half = torch.tensor([0.5])
    assert bits_of(sum_all(half.expand(count))) == bits_of(torch.tensor(count / 2))
    assert bits_of(sum_all(one.expand(count))) == [FORMATS[torch.float16].infinity]
    pair = torch.tensor([1.0, 2.0**-20], dtype=torch.float64)
    assert sum_all(pair.expand(1 << 28, 2), 0).tolist() == [2.0**28, 2.0**8]


def test_empty_and_0_d() -> None:
    for variant in VARIANTS:
        assert sum_all(torch.ones(3, 0), 1, variant=variant).tolist() == [0.0] * 3
        assert sum_all(torch.ones(3, 0), 0, variant=variant).shape == (0,)
        assert sum_all(torch.ones(0, 3), 0, True, variant=variant).tolist() == [[0.0] * 3]
        assert sum_all(torch.tensor(2.0), 0, variant=variant).item() == 2.0
        assert sum_all(torch.tensor(2.0), -1, True, variant=variant).shape == ()
        assert sum_all(torch.ones(1, 1, 1), 1, variant=variant).shape == (1, 1)


def test_gradients_over_dimensions() -> None:
    x = normal(24, torch.float64, 7).reshape(2, 3, 4).requires_grad_()
    for dim in DIMS:
        for keepdim in (False, True):
            for variant in ("exact", "fixed_order"):

                def total(y: Tensor, dim=dim, keepdim=keepdim, variant=variant) -> Tensor:  # type: ignore[no-untyped-def]
                    return sum_all(y, dim, keepdim, variant=variant)

                weight = normal(24, torch.float64, 8)[: total(x).numel()].reshape(total(x).shape)
                (ours,) = torch.autograd.grad((total(x) * weight).sum(), x)
                (theirs,) = torch.autograd.grad((x.sum(dim, keepdim) * weight).sum(), x)
                assert bits_of(ours) == bits_of(theirs)
    assert torch.autograd.gradcheck(lambda y: sum_all(y, (0, 2)), (x,))
    assert torch.autograd.gradgradcheck(lambda y: sum_all(y * y, (0, 2)), (x,))
    assert torch.autograd.gradcheck(lambda y: sum_all(y.transpose(0, 2)), (x,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ORDERED)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x = normal(60, dtype, 6).reshape(4, 15).requires_grad_()
    torch.library.opcheck(torch.ops.nondet_probe.sum_dim.default, (x, [0], True, variant, 2))


def test_compiled_code_gives_the_same_bits() -> None:
    x = normal(5000, torch.float32, 8).reshape(50, 100)
    for variant in ("exact", "fixed_order"):
        compiled = torch.compile(
            lambda y, v=variant: sum_all(y.t() * 3, 1, True, variant=v),
            backend="aot_eager",
            fullgraph=True,
        )
        assert bits_of(compiled(x)) == bits_of(sum_all(x.t() * 3, 1, True, variant=variant))
