"""histogram: bins as torch assigns them, promises (the trio), densities, refusals, dispatcher."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from cells import changed_modes, check_operator, distinct, scatter_bound, within
from generators import bits_of, from_bits, normal
from torch import Tensor

from nondet_probe import _C
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.ops import Guarantee, Histogram, histogram, histogram_ref, variants
from nondet_probe.ops.rational import FORMATS

DTYPES = [torch.float64, torch.float32]
VARIANTS = [variant.name for variant in variants("histogram")]
ORDERED = [v.name for v in variants("histogram") if v.guarantee >= Guarantee.LAUNCH_INVARIANT]


def around(edges: Tensor) -> Tensor:
    """Every edge with its neighbours, the middles, what lies outside, and what is no number."""
    inf = torch.full_like(edges, math.inf)
    specials = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0], dtype=edges.dtype)
    middles = edges[:-1] / 2 + edges[1:] / 2
    near = [edges, torch.nextafter(edges, inf), torch.nextafter(edges, -inf), middles, specials]
    return torch.cat([*near, edges[:1] - 1, edges[-1:] + 1])


# ---- which bin


EDGES = [
    [0.0, 1.0],
    [-1.0, 0.0, 1.0],
    [0.0, 0.1, 0.2, 0.30000001192092896, 0.7],
    [-5.0, -5.0, -1.0, -1.0, -1.0, 3.0, 3.0],
    [2.0, 2.0],
    [-math.inf, 0.0, math.inf],
    [-3e38, -1e-45, 0.0, 1e-45, 3e38],
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("edges", EDGES)
def test_edges_given_hold_what_they_hold_in_torch(edges: list[float], dtype: torch.dtype) -> None:
    limits = torch.tensor(edges, dtype=dtype)
    x = around(limits)
    expected = torch.histogram(x, limits)
    for variant in VARIANTS:
        found = histogram(x, limits, variant=variant)
        assert isinstance(found, Histogram)
        assert bits_of(found.hist) == bits_of(expected.hist)
        assert bits_of(found.bin_edges) == bits_of(limits)
        assert found.bin_edges.data_ptr() != limits.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bins", [1, 2, 3, 7, 100, 1000])
@pytest.mark.parametrize(
    "range", [(0.0, 1.0), (-1.0, 3.3), (1e-40, 1e-39), (-1e30, 1.0), (1.0, 1.0001), (5.0, 5.0)]
)
def test_bins_of_equal_width(bins: int, range: tuple[float, float], dtype: torch.dtype) -> None:
    """The guess at a bin gives what searching the same edges gives; edges are close to torch's."""
    limits = histogram(torch.zeros(0, dtype=dtype), bins, range=range).bin_edges
    x = torch.cat([around(limits), normal(1000, dtype, bins) * limits[-1]])
    found = histogram(x, bins, range=range)
    assert bits_of(found.bin_edges) == bits_of(limits)
    assert bits_of(found.hist) == bits_of(torch.histogram(x, limits).hist)
    of_torch = torch.histogram(x, bins, range=range).bin_edges
    scale = limits.abs().max().item()
    assert (limits - of_torch).abs().max() <= 4 * torch.finfo(dtype).eps * scale + 5e-324
    assert limits[0] == of_torch[0]
    assert limits[-1] == of_torch[-1]
    assert bool((limits[:-1] <= limits[1:]).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_edges_are_exact_everything_is_that_of_torch(dtype: torch.dtype) -> None:
    for bins, range in ((8, (-1.0, 1.0)), (100, (0.0, 100.0)), (3, (-1.5, 1.5)), (64, (0.0, 1.0))):
        x = around(torch.linspace(*range, bins + 1, dtype=dtype))
        found, expected = histogram(x, bins, range=range), torch.histogram(x, bins, range=range)
        assert bits_of(found.hist) == bits_of(expected.hist)
        assert bits_of(found.bin_edges) == bits_of(expected.bin_edges)


def test_the_range_of_the_data_is_that_of_torch() -> None:
    for values in ([], [2.0], [2.0, 2.0], [0.0, 3.0], [-0.0, 0.0, 3.0], [-4.0, 4.0, 0.0]):
        x = torch.tensor(values)
        found, expected = histogram(x, 4), torch.histogram(x, 4)
        assert torch.equal(found.hist, expected.hist)
        assert torch.equal(found.bin_edges, expected.bin_edges)
    first = histogram(torch.tensor([-0.0, 0.0, 1.0]), 2).bin_edges
    assert bits_of(first) == bits_of(histogram(torch.tensor([0.0, -0.0, 1.0]), 2).bin_edges)


def test_edges_do_not_depend_on_the_instruction_set_of_torch() -> None:
    script = (
        "import torch; from nondet_probe.ops import histogram\n"
        "x = torch.tensor([-3.1, 2.7])\n"
        "print(histogram(x, 1000).bin_edges.view(torch.int32).sum().item())"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    x = torch.tensor([-3.1, 2.7])
    assert int(done.stdout) == histogram(x, 1000).bin_edges.view(torch.int32).sum().item()


def test_counts_beyond_what_a_float_counts_to() -> None:
    """2^24 + 1 ones in float32: torch, adding ones, stays at 2^24."""
    x = torch.cat([torch.zeros((1 << 24) + 3), torch.ones(1)])
    assert histogram(x, 2).hist.tolist() == [float((1 << 24) + 4), 1.0]


# ---- the trio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("variant", ORDERED)
def test_ordered_variants_are_bit_identical(
    variant: str, density: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over runs, threads 1 to 8 and instruction sets, on sums that feel their order."""
    n = 140_000
    x, weight = normal(n, dtype, 1), normal(n, dtype, 2)

    def compute(threads: int) -> list[int]:
        of_weights = histogram(
            x, 50, weight=weight, density=density, variant=variant, threads=threads
        )
        counts = histogram(x, 50, density=density, variant=variant, threads=threads)
        return [bits for part in (*of_weights, *counts) for bits in bits_of(part)]

    expected = compute(1)
    for threads in (2, 2, 3, 4, 5, 6, 7, 8):
        assert compute(threads) == expected, threads
    for isa in _C.available_isas():
        monkeypatch.setenv("NONDET_PROBE_ISA", isa)
        assert compute(2) == expected, isa


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_within_their_bound(variant: str, dtype: torch.dtype) -> None:
    x, weight = normal(4000, dtype, 3), normal(4000, dtype, 4)
    found = histogram(x, 20, weight=weight, variant=variant, threads=2)
    edges = found.bin_edges.tolist()
    for bin in range(20):
        inside = (x >= edges[bin]) & ((x < edges[bin + 1]) | ((x == edges[-1]) & (bin == 19)))
        addends = weight[inside]
        assert within(found.hist[bin], addends, scatter_bound(variant, addends, weight)), bin


def test_the_check_of_bounds_can_fail() -> None:
    weight = normal(5000, torch.float32, 5)
    for variant in VARIANTS:
        found = histogram(torch.zeros(5000), 1, weight=weight, variant=variant).hist
        beyond = from_bits([bits_of(found)[0] + 400_000], weight.dtype)
        assert not within(beyond, weight, scatter_bound(variant, weight, weight))


@pytest.mark.parametrize("dtype", DTYPES)
def test_atomic_is_seen_to_vary(dtype: torch.dtype) -> None:
    x, weight = normal(1_000_000, dtype, 2), normal(1_000_000, dtype, 3)

    def compute(threads: int = 2) -> Tensor:
        return histogram(x, 3, weight=weight, variant="atomic", threads=threads).hist

    assert distinct(compute, enough=2, most=500) == 2
    assert distinct(lambda: compute(1), enough=2, most=5) == 1


@pytest.mark.parametrize("variant", ["fixed_point", "exact"])
def test_any_order_gives_the_same(variant: str) -> None:
    x, weight = normal(5000, torch.float32, 6), normal(5000, torch.float32, 7)
    for density in (False, True):
        expected = histogram(x, 10, weight=weight, density=density, variant=variant)
        for seed in range(5):
            order = torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
            found = histogram(x[order], 10, weight=weight[order], density=density, variant=variant)
            assert bits_of(found.hist) == bits_of(expected.hist)


# ---- exact, densities


def hard_weights(n: int, dtype: torch.dtype, kind: str) -> Tensor:
    weight = normal(n, dtype, 8)
    if kind == "wide":
        powers = torch.arange(n).remainder(600 if dtype is torch.float64 else 120) - 60
        return torch.ldexp(weight, powers)
    if kind == "cancelling":
        return torch.cat([weight[: n // 2], -weight[: n - n // 2]])
    return weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [False, True])
def test_exact_is_the_reference(dtype: torch.dtype, density: bool) -> None:
    x = normal(600, dtype, 9)
    x[5], x[6] = math.nan, math.inf
    for bins in (1, 13, torch.tensor([-2.0, -1.0, -1.0, 0.0, 0.5, 9.0], dtype=dtype)):
        range = None if isinstance(bins, Tensor) else (-2.0, 2.0)
        for kind in ("none", "normal", "wide", "cancelling"):
            weight = None if kind == "none" else hard_weights(600, dtype, kind)
            given = {"range": range, "weight": weight, "density": density}
            found, expected = histogram(x, bins, **given), histogram_ref(x, bins, **given)
            assert bits_of(found.hist) == bits_of(expected.hist), (bins, kind)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_densities_are_close_to_those_of_torch(variant: str, dtype: torch.dtype) -> None:
    x, weight = normal(1000, dtype, 10), normal(1000, dtype, 11).abs()
    for w in (None, weight):
        found = histogram(x, 7, weight=w, density=True, variant=variant)
        expected = torch.histogram(x, 7, weight=w, density=True)
        assert (found.hist / expected.hist - 1).abs().max() < 400 * torch.finfo(dtype).eps
        area = (found.hist.double() * found.bin_edges.double().diff()).sum().item()
        assert abs(area - 1) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_densities_of_nothing_and_of_specials(variant: str) -> None:
    nan = FORMATS[torch.float32].quiet_nan
    assert bits_of(histogram(torch.zeros(0), 2, density=True, variant=variant).hist) == [nan, nan]
    x, edges = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 2.0])

    def of(*weight: float) -> list[float]:
        given = {"weight": torch.tensor(weight), "density": True, "variant": variant}
        return histogram(x, edges, **given).hist.tolist()

    assert str(of(1.0, 1.0, 2.0)) == "[0.25, nan, 0.75]"  # nothing in no width
    assert str(of(math.inf, 1.0, 2.0)) == "[nan, nan, 0.0]"
    assert str(of(1.0, math.inf, -math.inf)) == "[nan, nan, nan]"
    assert str(of(1.0, -1.0, 0.0)) == "[inf, nan, -inf]"  # of a total of zero


@pytest.mark.parametrize("variant", VARIANTS)
def test_specials_among_weights(variant: str) -> None:
    form = FORMATS[torch.float32]
    inf = math.inf
    x = torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 9.0, math.nan])
    weight = torch.tensor([inf, 1.0, inf, -inf, -math.nan, -0.0, math.nan, inf])
    found = histogram(x, 4, range=(0.0, 4.0), weight=weight, variant=variant)
    assert bits_of(found.hist) == [form.infinity, form.quiet_nan, form.quiet_nan, 0]


# ---- shapes, layouts, modes, refusals


@pytest.mark.parametrize("variant", VARIANTS)
def test_layouts_and_shapes(variant: str) -> None:
    x, weight = normal(60, torch.float32, 12), normal(60, torch.float32, 13)
    expected = bits_of(histogram(x, 5, weight=weight, variant=variant).hist)
    for shape in ((60, 1), (3, 4, 5)):
        found = histogram(x.reshape(shape), 5, weight=weight.reshape(shape), variant=variant)
        assert bits_of(found.hist) == expected
    apart = [torch.stack([y, y], 1)[:, 1] for y in (x, weight)]
    found = histogram(apart[0], 5, weight=apart[1], variant=variant)
    assert bits_of(found.hist) == expected
    assert histogram(torch.tensor(2.0), 3, variant=variant).hist.tolist() == [0.0, 1.0, 0.0]
    edges = torch.tensor([0.0, 7.0, 1.0, 7.0, 2.0])[::2]
    assert histogram(torch.ones(3), edges, variant=variant).hist.tolist() == [0.0, 3.0]


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the modes of x86")
@pytest.mark.parametrize("dtype", DTYPES)
def test_modes_of_the_processor_change_nothing(dtype: torch.dtype) -> None:
    tiny = from_bits([0, 1, 2, 3, 4] * 4000, dtype)
    least = from_bits([1, 3], dtype).tolist()

    def compute() -> list[int]:
        found: list[int] = []
        for variant in ORDERED:
            for density in (False, True):
                given = {"weight": tiny, "density": density, "variant": variant, "threads": 2}
                for range in (None, least):
                    for part in histogram(tiny, 2, range=range, **given):
                        found += bits_of(part)
        return found

    expected = compute()
    for mode, found in changed_modes(compute).items():
        assert found == expected, mode


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_edges_that_fall_are_seen_to_fall(dtype: torch.dtype) -> None:
    def compute() -> list[int]:
        with pytest.raises(UsageError, match=r"edge 2 is .*, the one before it"):
            histogram(torch.zeros(2, dtype=dtype), from_bits([1, 3, 2], dtype))
        return []

    compute()
    changed_modes(compute)


X = torch.arange(4.0)
REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: histogram(X, 3, variant="exakt"), UnknownNameError, "did you mean 'exact'"),
    (lambda: histogram([1.0], 3), TypeError, "takes a torch.Tensor, got list"),
    (lambda: histogram(X.bfloat16(), 3), TypeError, "takes float64, float32; got bfloat16"),
    (lambda: histogram(X, 0), UsageError, "bins must be at least 1, got 0"),
    (lambda: histogram(X, 3, range=(1.0, 0.0)), UsageError, "ends before it begins: 1.0* to 0.0*"),
    (lambda: histogram(X, 3, range=(0.0, math.inf)), UsageError, "is not finite: 0.0* to inf"),
    (lambda: histogram(X, 3, range=(1.0,)), UsageError, "range is two numbers, got 1"),
    (lambda: histogram(X / 0, 3), UsageError, "is not finite: -?nan to -?nan"),
    (lambda: histogram(X, X, range=(0.0, 1.0)), UsageError, "range goes with a number of bins"),
    (lambda: histogram(X, X[:1]), UsageError, r"at least 2 elements, got shape \(1,\)"),
    (lambda: histogram(X, X.reshape(2, 2)), UsageError, r"got shape \(2, 2\)"),
    (lambda: histogram(X, X.double()), TypeError, "bins must have the dtype of input"),
    (lambda: histogram(X, X.flip(0)), UsageError, "edge 1 is 2.0, the one before it 3.0"),
    (lambda: histogram(X, X / X[:1]), UsageError, "edge 1 is inf, the one before it nan"),
    (lambda: histogram(X, 3, weight=X[:3]), UsageError, r"the shape of input, \(4,\), got \(3,\)"),
    (lambda: histogram(X, 3, weight=X.double()), TypeError, "weight must have the dtype of input"),
    (lambda: histogram(X, 3, threads=0), UsageError, "threads must be at least 1, got 0"),
    (lambda: histogram(X.to("meta"), 3), TypeError, "on cpu or cuda, got one on meta"),
    (lambda: histogram(X.clone().requires_grad_(), 3), TypeError, "has no derivative; pass x.det"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- torch's dispatcher


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant: str, dtype: torch.dtype) -> None:
    x, weight = normal(30, dtype, 6), normal(30, dtype, 7)
    edges = torch.tensor([-1.0, 0.0, 2.0], dtype=dtype)
    check_operator("histogram", (x, edges, False, weight, True, variant, 2))
    if variant == "exact":
        check_operator("histogram", (x, edges, True, None, False, variant, 2))
        check_operator("histogram_edges", (x, 5, None, None))
        check_operator("histogram_edges", (x, 5, -1.0, 2.0))


def test_compiled_code_gives_the_same_bits() -> None:
    x, weight = normal(5000, torch.float32, 8), normal(5000, torch.float32, 9)
    for variant in ORDERED:
        compiled = torch.compile(
            lambda y, v=variant: tuple(histogram(y * 3, 20, weight=weight, variant=v)),
            backend="aot_eager",
            fullgraph=True,
        )
        expected = histogram(x * 3, 20, weight=weight, variant=variant)
        for found, part in zip(compiled(x), expected, strict=True):
            assert bits_of(found) == bits_of(part)
