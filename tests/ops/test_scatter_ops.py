"""index_add, scatter_add, index_put and index as functions of torch: shapes, gradients, refusals,
dispatcher."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from generators import bits_of, normal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import (
    index,
    index_add,
    index_add_ref,
    index_put,
    index_put_ref,
    scatter_add,
    scatter_add_ref,
    variants,
)
from nondet_probe.ops.rational import FORMATS

DTYPES = list(FORMATS)
VARIANTS = [variant.name for variant in variants("index_add")]
ORDERED = ["ordered", "fixed_point", "exact"]
T = torch.tensor


def cube(dtype: torch.dtype = torch.float32) -> Tensor:
    return normal(120, dtype, 1).reshape(4, 5, 6)


def whole(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Integers, so that every correct result is the same in any variant."""
    rng = np.random.default_rng(2)
    return torch.from_numpy(rng.integers(-9, 9, shape).astype(np.float64)).to(dtype)


def places(shape: tuple[int, ...], size: int, seed: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, size, shape))


# ---- the results are torch's, where these are exact


def test_index_add_over_every_dimension() -> None:
    x = whole((4, 5, 6))
    for dim in (0, 1, 2, -1, -3):
        for kind in (torch.int64, torch.int32):
            i = places((11,), x.shape[dim]).to(kind)
            shape = list(x.shape)
            shape[dim] = 11
            source = whole(tuple(shape))
            expected = bits_of(x.index_add(dim, i, source, alpha=-2))
            assert bits_of(index_add_ref(x, dim, i, source, alpha=-2)) == expected
            for variant in VARIANTS:
                assert bits_of(index_add(x, dim, i, source, alpha=-2, variant=variant)) == expected


@pytest.mark.parametrize("fewer", [0, 1])
def test_scatter_add_over_every_dimension(fewer: int) -> None:
    x = whole((4, 5, 6))
    for dim in (0, 1, 2, -1):
        shape = [4 - fewer, 5 - fewer, 6 - fewer]
        shape[dim] = 20
        i, src = places(tuple(shape), x.shape[dim]), whole((21, 21, 21))
        expected = bits_of(x.scatter_add(dim, i, src))
        assert bits_of(scatter_add_ref(x, dim, i, src)) == expected
        for variant in VARIANTS:
            assert bits_of(scatter_add(x, dim, i, src, variant=variant)) == expected


def test_scatter_add_of_more_than_a_block() -> None:
    """Whose edges lie anywhere in the rows and columns, on one thread and more."""
    x, src = whole((3, 70, 5)), whole((3, 2500, 5))
    for dim, i in ((1, places((3, 2500, 5), 70)), (0, places((3, 70, 5), 3))):
        expected = bits_of(x.scatter_add(dim, i, src))
        for variant in VARIANTS:
            for threads in (1, 2):
                result = scatter_add(x, dim, i, src, variant=variant, threads=threads)
                assert bits_of(result) == expected


# (shape of the table, dim, length of the index along it): many tables, columns of one or two, wide
# rows whose columns are shared out, more of them than are converted at a time, few of either.
GRIDS = [
    ((30, 50, 4), 1, 700),
    ((40, 9), 1, 2000),
    ((70, 200), 0, 400),
    ((5000, 33), 0, 2000),
    ((3, 1100), 0, 70),
    ((11, 3), 0, 30_000),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_an_index_along_a_dimension_adds_in_its_order(
    grid: tuple[tuple[int, ...], int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As numpy does it, one by one, in the type that `ordered` adds in."""
    shape, dim, length = grid
    of_index = (*shape[:dim], length, *shape[dim + 1 :])
    i = places(of_index, shape[dim])
    x = normal(math.prod(shape), dtype, 1).reshape(shape)
    src = normal(math.prod(of_index), dtype, 2).reshape(of_index)
    sums = (x if dtype is torch.float64 else x.float()).numpy(force=True).copy()
    at = list(np.indices(of_index, sparse=True))
    at[dim] = i.numpy()
    np.add.at(sums, tuple(at), src.double().numpy().astype(sums.dtype))
    patterns = FORMATS[dtype].integers
    expected = torch.from_numpy(sums).to(dtype).view(patterns)
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        assert torch.equal(scatter_add(x, dim, i, src, threads=2).view(patterns), expected), isa
    monkeypatch.delenv("NONDET_PROBE_ISA")
    for threads in (1, 3, 8):
        found = scatter_add(x, dim, i, src, threads=threads)
        assert torch.equal(found.view(patterns), expected), threads
    # The first of several bad ones is named, whoever meets it.
    spread = i.reshape(-1)
    for bad in (shape[dim], -1, 2**63 - 1):
        spread[spread.numel() // 2 + 13 :: 7] = bad
        first = spread.numel() // 2 + 13
        for threads in (1, 2, 5):
            with pytest.raises(IndexError, match=rf"index {bad} at position {first} "):
                scatter_add(x, dim, i, src, threads=threads)


@pytest.mark.parametrize("columns", [1, 7, 200])
def test_rows_have_the_same_bits_however_they_are_given(columns: int) -> None:
    """By an index that is expanded or spread out, by any op and along any dimension."""
    x = normal(3 * columns, torch.float32, 1).reshape(3, columns)
    src, i = normal(500 * columns, torch.float32, 2).reshape(500, columns), places((500,), 3)
    for variant in ORDERED:
        by_rows = scatter_add(x, 0, i.unsqueeze(1).expand(500, columns), src, variant=variant)
        assert bits_of(by_rows) == bits_of(index_add(x, 0, i, src, variant=variant))
        spread = i.unsqueeze(1).expand(500, columns).contiguous()
        assert bits_of(scatter_add(x, 0, spread, src, variant=variant)) == bits_of(by_rows)
        across = index_add(x.t(), 1, i, src.t(), variant=variant)
        assert bits_of(across.t()) == bits_of(by_rows)
        within = index_put(x.t(), (None, i), src.t(), variant=variant)
        assert bits_of(within.t()) == bits_of(by_rows)


INDICES: list[tuple[Tensor | None, ...]] = [
    (T([1, -1, 1, 0]),),
    (T([1, -1, 1], dtype=torch.int32),),
    (T(2),),
    (T([[1, 2], [2, 1]]),),
    (None, T([1, 0, -5, 1])),
    (None, None, T([[5, 5]])),
    (T([1, 1]), T([2, -3])),
    (T([[0], [1]]), T([2, 2, 3])),
    (T([0, 1]), None, T([[2], [3]])),
    (None, T([1, 1]), T([2, 2])),
    (T([0, -1]), T([1, 1]), T([[5, 0], [5, 0]])),
    (whole((4, 5, 6)).sum(2) > 0,),
    (None, None, whole((6,)) > 0),
    (T([1]), whole((5, 6)) > 3),
    (T([1, 2]), whole((5,)) > 99, None),
    (torch.empty(0, dtype=torch.int64),),
]


def python_index(indices: tuple[Tensor | None, ...]) -> tuple[Tensor | slice, ...]:
    return tuple(slice(None) if i is None else i for i in indices)


@pytest.mark.parametrize("number", range(len(INDICES)))
def test_index_put_and_index_as_torch(number: int) -> None:
    indices = INDICES[number]
    x = whole((4, 5, 6))
    try:
        part = x[python_index(indices)]
    except IndexError:
        for call in (lambda: index(x, indices), lambda: index_put(x, indices, torch.ones(1))):
            with pytest.raises(IndexError, match=r"do not broadcast|could not be broadcast"):
                call()
        return
    assert bits_of(index(x, indices)) == bits_of(part)
    for values in (whole(tuple(part.shape)), whole((1,)), whole(part.shape[-1:])):
        expected = bits_of(torch.ops.aten.index_put(x, list(indices), values, True))
        assert bits_of(index_put_ref(x, indices, values)) == expected
        for variant in VARIANTS:
            assert bits_of(index_put(x, indices, values, variant=variant)) == expected


def test_layouts_make_no_difference() -> None:
    """Strides, offsets, expanded and negated tensors: the logical elements alone count."""
    x, source = normal(40, torch.float32, 1).reshape(5, 8), normal(720, torch.float32, 2)
    source, i = source.reshape(90, 8), places((90,), 5)
    lazy = torch.conj(torch.complex(torch.zeros(90, 8), source)).imag
    assert lazy.is_neg()
    for variant in ORDERED:
        expected = bits_of(index_add(x, 0, i, source, variant=variant))
        for given_x, given_i, given in (
            (x.t().contiguous().t(), i, source.t().contiguous().t()),
            (torch.cat([T([9.0]), x.flatten()])[1:].view(5, 8), i.repeat(2)[:90], source),
            (x, torch.stack([i, i], 1)[:, 0], torch.cat([source, source], 1)[:, :8]),
            (x.clone(), i, -lazy),
        ):
            assert bits_of(index_add(given_x, 0, given_i, given, variant=variant)) == expected
        column = source[:, :1].expand(90, 8)
        alike = bits_of(index_add(x, 0, i, column.contiguous(), variant=variant))
        assert bits_of(index_add(x, 0, i, column, variant=variant)) == alike


@pytest.mark.parametrize("variant", VARIANTS)
def test_results_are_new_and_inputs_stay(variant: str) -> None:
    x, i, source = torch.ones(4), T([1, -1]), torch.ones(2)
    for given, result in (
        (x, index_add(x, 0, i.abs(), source, variant=variant)),
        (x, scatter_add(x, 0, i.abs(), source, variant=variant)),
        (x, index_put(x, (i,), source, variant=variant)),
        (x, index(x, (i,), variant=variant)),
        (x, index_add(x, 0, i[:0], source[:0], variant=variant)),
    ):
        assert result.data_ptr() != given.data_ptr()
    assert x.tolist() == [1, 1, 1, 1]
    assert source.tolist() == [1, 1]
    assert i.tolist() == [1, -1]


def test_zero_dimensional_tensors() -> None:
    one, at = T(1.0), T(0)
    assert index_add(one, 0, at, one).item() == one.index_add(0, at, one).item() == 2
    assert scatter_add(one, 0, at, one).item() == one.scatter_add(0, at, one).item() == 2
    with pytest.raises(UsageError, match="masks of at least one dimension"):
        index_put(one, (T(True),), one)


def test_ordered_is_the_default() -> None:
    x, i, source = torch.zeros(1), torch.zeros(3, dtype=torch.int64), T([1e8, -1e8, 1e-8])
    source = T([1e-8, 1e8, -1e8])
    assert index_add(x, 0, i, source).item() == 0
    assert scatter_add(x, 0, i, source).item() == 0
    assert index_put(x, (i,), source).item() == 0
    assert index_put(x, (i,), source, variant="exact").item() == source[0].item()


# ---- refusals

X, AT, S = torch.ones(3), T([0, 1]), torch.ones(2)
REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: index_add(X, 0, AT, S, variant="exakt"), UnknownNameError, "did you mean 'exact'"),
    (lambda: scatter_add(X, 0, AT, S, variant="sum"), UnknownNameError, "Known: atomic, exact"),
    (lambda: index_put(X, (AT,), S, variant=""), UnknownNameError, "variant of index_put"),
    (lambda: index(X, (AT,), variant=""), UnknownNameError, "variant of index"),
    (lambda: index_add(X.int(), 0, AT, S), TypeError, "takes float64, .*; got int32"),
    (lambda: index_add(X, 0, AT, S.double()), TypeError, "float32; got float64; convert"),
    (lambda: scatter_add(X, 0, AT, S.half()), TypeError, "src of the dtype of input"),
    (lambda: index_put(X, (AT,), S.half()), TypeError, "values of the dtype of input"),
    (lambda: index_add(X, 0, AT.float(), S), TypeError, "int64 or int32; got float32"),
    (lambda: scatter_add(X, 0, AT > 0, S), TypeError, "int64 or int32; got bool"),
    (lambda: index_put(X, (AT.byte(),), S), TypeError, "int64 or int32 or bool; got uint8"),
    (lambda: index_put(X, AT, S), TypeError, r"pass \(index,\)"),
    (lambda: index_add(X, 1, AT, S), IndexError, r"dim must lie in \[-1, 0\], got 1"),
    (lambda: index_add(X, 0, AT.view(2, 1), S), UsageError, "1-D index"),
    (lambda: index_add(X, 0, AT, X), UsageError, r"source must have shape \(2,\)"),
    (lambda: scatter_add(X, 0, T([0, 1, 1]), S), UsageError, "no larger than src"),
    (lambda: scatter_add(X, 0, AT.view(2, 1), S), UsageError, "no larger than src"),
    (lambda: index_put(X, (AT,), X), UsageError, "do not broadcast to"),
    (lambda: index_put(X, (AT, AT), S), IndexError, "2 dimensions are indexed"),
    (lambda: index_put(X, (T([True]),), S), IndexError, "a mask of shape"),
    (lambda: index_put(X, (None,), S), UsageError, "at least one index"),
    (lambda: index(X, ()), UsageError, "at least one index"),
    (lambda: index_add(X, 0, AT, S, threads=0), UsageError, "at least 1, got 0"),
    (lambda: index_add(X.to("meta"), 0, AT, S), TypeError, "on cpu or cuda, got one on meta"),
    (lambda: index_add(X, 0, AT, S.to_sparse()), TypeError, "takes dense tensors"),
    (lambda: index_add(X, 0, T([0, 3]), S), IndexError, "index 3 at position 1 .* 3 rows"),
    (lambda: index_add(X, 0, T([-1, 0]), S), IndexError, "index -1 at position 0"),
    (lambda: scatter_add(X, 0, T([0, -1]), S), IndexError, "index -1 at position 1"),
    (lambda: scatter_add(cube(), 1, T([[[9]]]), cube()), IndexError, "index 9 at position 0"),
    (lambda: scatter_add(S.view(1, 2), 0, T([[0, 1]]), S.view(1, 2)), IndexError, "index 1 at"),
    (lambda: scatter_add(S.view(2, 1), 1, T([[0], [-1]]), S.view(2, 1)), IndexError, "position 1"),
    (lambda: index_add(cube(), 1, T([9]), cube()[:, :1]), IndexError, "index 9 at position 0"),
    (lambda: index_put(X, (T([0, -4]),), S), IndexError, "index -4 at position 1"),
    (lambda: index_put(cube(), (AT, T([0, 5])), S[:1]), IndexError, "index 5 at .* size 5"),
    (lambda: index(X, (T([3]),)), IndexError, "out of bounds"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_refusals(number: int) -> None:
    call, error, message = REFUSALS[number]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("which", range(3))
def test_tensors_without_memory_are_refused(which: int) -> None:
    given = [torch.ones(3), T([0, 1, 2]), torch.ones(3)]
    given[which].untyped_storage().resize_(0)
    x, i, source = given
    for call in (
        lambda: index_add(x, 0, i, source),
        lambda: scatter_add(x, 0, i, source),
        lambda: index_put(x, (i,), source),
    ):
        with pytest.raises(TypeError, match="no memory behind it"):
            call()


# ---- torch's dispatcher


def calls(dtype: torch.dtype) -> dict[str, tuple[object, ...]]:
    """Arguments of each operator, before the variant and the threads."""
    x, i = cube(dtype).requires_grad_(), places((7,), 5)
    source = normal(4 * 7 * 6, dtype, 2).reshape(4, 7, 6).requires_grad_()
    spread = places((4, 7, 6), 5)
    row = normal(7, dtype, 4).unsqueeze(1).expand(7, 6).contiguous().requires_grad_()
    return {
        "index_add": (x, 1, i, source, 2.0),
        "scatter_add": (x, 1, spread, source),
        "index_put": (x, [places((7,), 4), i], row),
        "index": (x, [places((7,), 4), i]),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", list(calls(torch.float32)))
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, op: str, dtype: torch.dtype) -> None:
    """The check by torch.compile takes a second: for one dtype, whose kernels are all the same."""
    overload = getattr(torch.ops.nondet_probe, op).default
    with warnings.catch_warnings():
        # torch 2.14's own checker reads .grad of tensors that are no leaves, and warns of itself.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        utils = ("test_schema", "test_autograd_registration", "test_faketensor")
        if dtype is torch.float32:
            utils = (*utils, "test_aot_dispatch_dynamic")
        torch.library.opcheck(overload, (*calls(dtype)[op], variant, 1), test_utils=utils)


# On one thread even the atomic variant gives the same twice: no tolerance is needed.
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    x = normal(12, torch.float64, 1).reshape(3, 4).requires_grad_()
    source = normal(20, torch.float64, 2).reshape(5, 4).requires_grad_()
    i, spread = places((5,), 3), places((4, 4), 3)
    how = {"variant": variant, "threads": 1}
    both: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda a, b: index_add(a, 0, i, b, alpha=3, **how), (x, source)),
        (lambda a, b: scatter_add(a, 0, spread, b, **how), (x, source)),
        (lambda a, b: index_put(a, (i,), b, **how), (x, source)),
        (lambda a, b: index_put(a, (None, i), b[0, :1], **how), (x, source)),
        (lambda a: index(a, (i, T([[1], [-1]])), **how), (x,)),
        (lambda a: index(a, (None, i), **how), (x,)),
    ]
    for function, given in both:
        assert torch.autograd.gradcheck(function, given)
        assert torch.autograd.gradgradcheck(lambda *g, f=function: f(*g) ** 2, given)


@pytest.mark.parametrize("variant", ORDERED)
def test_the_backward_of_index_is_the_variant_asked_for(variant: str) -> None:
    x = torch.zeros(1, requires_grad=True)
    gradient = T([1e-8, 1e8, -1e8])
    index(x, (T([0, 0, -1]),), variant=variant).backward(gradient)
    expected = index_put(torch.zeros(1), (T([0, 0, -1]),), gradient, variant=variant)
    assert bits_of(x.grad) == bits_of(expected)
    assert (x.grad.item() == 0) == (variant == "ordered")


def test_dispatch_modes_see_them() -> None:
    seen: list[str] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Recorder():
        index_add(X, 0, AT, S)
        scatter_add(X, 0, AT, S)
        index_put(X, (AT,), S)
        index(X, (AT,))
    assert seen == [
        f"nondet_probe.{op}.default" for op in ("index_add", "scatter_add", "index_put", "index")
    ]


@pytest.mark.parametrize("variant", ORDERED)
def test_compiled_code_gives_the_same_bits(variant: str) -> None:
    x, source, i = normal(9, torch.float32, 1), normal(900, torch.float32, 2), places((900,), 9)

    def all_of_them(x: Tensor, source: Tensor, i: Tensor) -> Tensor:
        x = index_add(x, 0, i, source, variant=variant)
        x = scatter_add(x, 0, i, source * 3, variant=variant)
        x = index_put(x, (i,), source * 5, variant=variant)
        return index(x, (i,), variant=variant)

    compiled = torch.compile(all_of_them, backend="aot_eager", fullgraph=True)
    results = []
    for function in (all_of_them, compiled):
        given = x.clone().requires_grad_()
        result = function(given, source, i)
        result.backward(source)
        results.append((bits_of(result.detach()), bits_of(given.grad)))
    assert results[0] == results[1]


# torch's own forward mode scripts its formulas on first use, and says that this is deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_is_refused_and_not_taken_for_zero() -> None:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, X)
        for call in (lambda: index_add(dual, 0, AT, S), lambda: index(dual, (AT,))):
            with pytest.raises(TypeError, match="no forward-mode derivative"):
                call()
