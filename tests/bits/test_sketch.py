from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sketch_by_document import TABLE, place, sketch_of
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits import SKETCH_FORMAT, sketch, sketch_distance, sketch_norm, via_c
from nondet_probe.bits.sketch import BUCKETS, SKETCHED, sketch_error

DOCUMENT = Path(__file__).parents[2] / "docs" / "sketch.md"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bits(found: Tensor) -> list[int]:
    return found.view(torch.int64).tolist()


def model() -> dict[str, Tensor]:
    """Every dtype, whole blocks and pieces, groups of eight, four and one, a view and a scalar."""
    return {
        "head.weight": normal(300, 1000),
        "a": normal(7).half(),
        "norm.bias": normal(5000, seed=1).bfloat16(),
        "big.half": normal(4096 * 13, seed=2).half(),
        "big.bfloat": normal(4096 * 12 + 1, seed=3).bfloat16(),
        "z": normal(4096 * 5, seed=4).double() * math.pi,
        "t": normal(90, 70, seed=5).t(),
        "empty": torch.zeros(0, 3),
        "scale": torch.tensor(3.0),
        "naïve": normal(4095),
    }


# ---- the format ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected() -> list[int]:
    return bits(torch.tensor(sketch_of(model()), dtype=torch.float64))


def test_as_the_document_says(expected: list[int]) -> None:
    assert bits(sketch(model())) == expected


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_instruction_set_and_threads_do_not_enter(
    isa: str, threads: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = via_c.sketch
    monkeypatch.setattr(via_c, "sketch", lambda given, workers: inner(given, workers, isa))
    assert bits(sketch(model(), threads=threads)) == expected


def test_the_order_of_the_tensors_does_not_enter(expected: list[int]) -> None:
    assert bits(sketch(dict(reversed(model().items())))) == expected


def test_strides_do_not_enter(expected: list[int]) -> None:
    views = {name: torch.stack([x, x + 1], -1)[..., 0] for name, x in model().items()}
    assert bits(sketch(views)) == expected


def test_the_modes_of_the_processor_do_not_enter(expected: list[int]) -> None:
    tiny = {"w": torch.full((4096 * 9,), 1e-42)}
    kept = bits(sketch(tiny))
    assert kept != bits(torch.zeros(BUCKETS, dtype=torch.float64))
    torch.set_flush_denormal(True)
    try:
        assert bits(sketch(tiny)) == kept
        assert bits(sketch(model())) == expected
    finally:
        torch.set_flush_denormal(False)


def test_the_document_names_the_format_and_its_constants() -> None:
    text = DOCUMENT.read_text()
    assert f"`{SKETCH_FORMAT}`" in text
    assert f"`{TABLE[:8].hex()}`" in text
    assert f"`{TABLE[-8:].hex()}`" in text
    rotation, stretch, negative = place("head.weight", 0)
    assert f"rotation {rotation}, stretch {stretch}, sign bit {negative}" in text


# If this fails, the format has changed: give it another name.
GOLDEN = [(1399, 1.0), (3830, 2.5)]


def test_golden_values() -> None:
    found = sketch({name: torch.tensor([value]) for name, value in [("a", 1.0), ("b", 2.5)]})
    places = torch.nonzero(found).flatten().tolist()
    assert [(at, found[at].item()) for at in places] == GOLDEN
    assert all(f"bucket {at} holds {value:g}" in DOCUMENT.read_text() for at, value in GOLDEN)


# ---- what it tells ------------------------------------------------------------------------------


def rows(count: int) -> Tensor:
    """Alike in every block: what hashing is worst at."""
    return torch.ones(count)


def one_column(count: int) -> Tensor:
    x = torch.zeros(count // 128, 128)
    x[:, 5] = 1.0
    return x.flatten()


KINDS: dict[str, Callable[[int], Tensor]] = {"normal": normal, "alike": rows, "column": one_column}


@pytest.mark.parametrize("kind", KINDS)
def test_the_squared_distance_is_without_bias_and_within_its_variance(kind: str) -> None:
    """Over 400 names, which are as many draws of rotations, stretches and signs."""
    x = KINDS[kind](4096 * 40)
    true = x.double().square().sum().item()
    found = [sketch_norm(sketch({f"draw {i}": x})) ** 2 / true for i in range(400)]
    deviation = math.sqrt(4 / BUCKETS)
    # The mean of 400 within 3 of its deviations; their variance within the bound and, since 400
    # draws tell it to 7 %, 20 % more.
    assert abs(statistics.fmean(found) - 1) < 3 * deviation / math.sqrt(400)
    assert statistics.pvariance(found) < 1.2 * deviation**2
    share = sum(abs(math.sqrt(one) - 1) <= sketch_error(0.95) for one in found) / len(found)
    assert share >= 0.95


def test_signs_of_the_elements_are_needed_for_that_bound() -> None:
    """The offence: rotations and signs of whole blocks alone. What is alike then adds up."""
    blocks = [place("w", block) for block in range(40)]
    total = sum(-1 if negative else 1 for _, _, negative in blocks)
    without = 4096 * total**2 / (4096 * 40)
    assert abs(without - 1) > 6 * math.sqrt(4 / BUCKETS)
    found = sketch_norm(sketch({"w": rows(4096 * 40)})) ** 2 / (4096 * 40)
    assert abs(found - 1) < 6 * math.sqrt(4 / BUCKETS)


def test_one_ulp_in_one_of_ten_million() -> None:
    weights = normal(10_000_000).mul_(0.01)
    before = sketch({"w": weights})
    for index in (0, 1_234_567, 9_999_999):
        old = weights[index].item()
        weights[index] = torch.nextafter(weights[index], torch.tensor(1.0))
        ulp = abs(weights[index].item() - old)
        found = sketch_distance(before, sketch({"w": weights}))
        assert abs(found - ulp) < 1e-4 * ulp
        weights[index] = old
    assert bits(sketch({"w": weights})) == bits(before)


def test_two_tensors_do_not_share_their_places() -> None:
    x = normal(4096 * 4)
    both = sketch_norm(sketch({"a": x, "b": -x})) ** 2 / (2 * x.double().square().sum().item())
    assert abs(both - 1) < 6 * math.sqrt(4 / BUCKETS)


def test_up_to_a_block_the_distance_is_exact() -> None:
    x = torch.arange(1.0, 4097.0)
    squares = sum(i * i for i in range(1, 4097))
    assert sketch_norm(sketch({"w": x})) == math.sqrt(squares)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_a_distance(bad: float) -> None:
    x = normal(4096 * 3)
    good = sketch({"w": x})
    x[5000] = bad
    broken = sketch({"w": x})
    assert math.isnan(sketch_distance(good, broken))
    assert math.isnan(sketch_distance(broken, good))
    assert math.isnan(sketch_distance(broken, broken))


def test_a_nan_has_one_form() -> None:
    for pattern in (0x7FC00001, -0x400000):
        x = torch.tensor([pattern], dtype=torch.int32).view(torch.float32)
        found = sketch({"w": x})
        (nan,) = found[found.isnan()].view(torch.int64).tolist()
        assert nan == 0x7FF8 << 48


def test_sketch_error_is_chebyshevs() -> None:
    assert sketch_error(0.0) == 1 - math.sqrt(1 - math.sqrt(4 / 4096))
    assert f"{sketch_error(0.95):.4f}" == "0.0725"
    assert math.isinf(sketch_error(0.9999))
    with pytest.raises(ValueError, match=r"confidence=1\.0: at least 0 and below 1"):
        sketch_error(1.0)


# ---- bad input ----------------------------------------------------------------------------------


def test_other_dtypes_are_refused_by_name() -> None:
    for dtype in (torch.int64, torch.bool, torch.complex64, torch.float8_e5m2):
        with pytest.raises(TypeError, match=r"step: dtype .* is not sketched; those that are: fl"):
            sketch({"w": normal(3), "step": torch.zeros(3, dtype=dtype)})
    assert len(SKETCHED) == 4


def test_bad_threads_and_tensors_without_memory() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1"):
        sketch({"w": normal(3)}, threads=0)
    with pytest.raises(TypeError, match="meta device"):
        sketch({"w": torch.empty(3, device="meta")})


def test_of_nothing_it_is_zero() -> None:
    assert bits(sketch({})) == [0] * BUCKETS
