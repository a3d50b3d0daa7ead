"""Two files of state: every planted difference is found; nothing in a file is executed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nondet_probe.errors import RecordError, UsageError
from nondet_probe.probe.differ import state_files
from nondet_probe.probe.differ.states import diff_states
from nondet_probe.records.state_difference import LeafDifference, StateDifference


def state() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, generator=draw),
        "conv.bias": torch.randn(4, generator=draw).to(torch.bfloat16),
        "bn.count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "spectrum": torch.randn(3, dtype=torch.complex64, generator=draw),
        "nothing": torch.empty(0, 3),
    }


def training() -> dict[str, Any]:
    parameter = torch.nn.Parameter(state()["conv.weight"])
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.sum().backward()
    optimizer.step()
    return {"model": OrderedDict(state()), "optimizer": optimizer.state_dict(), "step": 1}


def saved(path: Path, found: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(found, path)
    else:
        torch.save(found, path)
    return path


@pytest.fixture(params=["safetensors", "pt", "old.pth"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def compared(a: Any, b: Any) -> StateDifference:
        paths = [tmp_path / f"{name}.{request.param}" for name in ("a", "b")]
        for path, found in zip(paths, (a, b), strict=True):
            if request.param == "old.pth":
                torch.save(found, path, _use_new_zipfile_serialization=False)
            else:
                saved(path, found)
        return diff_states(*paths)

    return compared


def only(found: StateDifference) -> LeafDifference:
    (difference,) = found.differences
    assert not found.equal
    return difference


def test_equal_files_are_equal(pair: Any) -> None:
    found = pair(state(), state())
    assert found.equal
    assert (found.tensors, found.values, found.different) == (6, 0, 0)
    assert found.elements == 4 * 3 + 4 + 1 + 2 + 3


PLANTED = {
    "one ulp": ("conv.weight", (2, 1), lambda x: torch.nextafter(x, x + 1), 1),
    "two ulps of bfloat16": ("conv.bias", (3,), lambda x: torch.nextafter(
        torch.nextafter(x, x + 1), x + 1), 2),
    "an integer": ("bn.count", (), lambda x: x + 1, None),
    "a bool": ("mask", (1,), lambda x: ~x, None),
    "a complex half": ("spectrum", (0,), lambda x: torch.complex(
        x.real, torch.nextafter(x.imag, x.imag + 1)), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_element_is_found_with_its_place_values_and_ulps(pair: Any, name: str) -> None:
    key, place, change, ulps = PLANTED[name]
    other = state()
    other[key][place] = change(other[key][place])
    found = pair(state(), other)
    difference = only(found)
    assert (difference.name, difference.kind) == (key, "bits")
    assert (difference.different, difference.elements) == (1, state()[key].numel())
    assert difference.first == list(place)
    assert difference.max_ulp == ulps
    assert difference.first_a != difference.first_b
    assert str(state()[key][place].item()) in str(difference.first_a)
    assert found.different == 1


def test_zeros_and_nans_are_told_by_their_bits(pair: Any) -> None:
    a, b = {"x": torch.tensor([0.0, math.nan])}, {"x": torch.tensor([-0.0, math.nan])}
    difference = only(pair(a, b))
    assert (difference.first_a, difference.first_b) == ("0.0 (0x00000000)", "-0.0 (0x80000000)")
    b["x"][0] = 0.0
    assert pair(a, b).equal  # a NaN equals itself
    b["x"].view(torch.int32)[1] += 1
    assert only(pair(a, b)).first == [1]


def test_structure_is_found(pair: Any) -> None:
    other = state()
    other["conv.weight"] = other["conv.weight"].T.contiguous()
    assert only(pair(state(), other)).kind == "shape"
    other = state()
    other["conv.weight"] = other["conv.weight"].double()
    difference = only(pair(state(), other))
    assert (difference.kind, difference.a, difference.b) == (
        "dtype", "float32 [4, 3]", "float64 [4, 3]",
    )  # fmt: skip
    other = state()
    del other["conv.bias"]
    assert only(pair(state(), other)).kind == "only_a"
    assert only(pair(other, state())).kind == "only_b"
    assert only(pair(other, state())).b == "bfloat16 [4]"


def nested(tmp_path: Path, change: Any) -> StateDifference:
    other = training()
    change(other)
    return diff_states(saved(tmp_path / "a.pt", training()), saved(tmp_path / "b.pt", other))


def test_nested_states_of_optimizers_are_compared(tmp_path: Path) -> None:
    assert nested(tmp_path, lambda found: None).equal

    def average(found: Any) -> None:
        found["optimizer"]["state"][0]["exp_avg"][1, 2] += 1

    difference = only(nested(tmp_path, average))
    assert difference.name == "optimizer.state.0.exp_avg"
    assert difference.first == [1, 2]

    def rate(found: Any) -> None:
        found["optimizer"]["param_groups"][0]["lr"] = math.nextafter(0.1, 1)

    difference = only(nested(tmp_path, rate))
    assert (difference.name, difference.kind) == ("optimizer.param_groups[0].lr", "value")
    assert difference.a != difference.b

    def betas(found: Any) -> None:
        found["optimizer"]["param_groups"][0]["betas"] = (0.9, 0.99)

    assert only(nested(tmp_path, betas)).name == "optimizer.param_groups[0].betas[1]"
    assert only(nested(tmp_path, lambda found: found.update(step=True))).kind == "type"
    assert only(nested(tmp_path, lambda found: found.update(more={}))).kind == "only_b"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"a.b": 1}, {"a": {"b": 1}}),  # told alike, and not the same
        ({1: 2}, {"1": 2}),
        ({1: 2}, {True: 2}),
        ({"a": []}, {"a": {}}),
        ({"a": None}, {}),
        ({"a": b"x"}, {"a": bytearray(b"x")}),
        ({"a": -0.0}, {"a": 0.0}),
        ({"a": 1j}, {"a": complex(-0.0, 1)}),
        ({"a": {1, 2}}, {"a": {1, 2, 3}}),
        ({"a": torch.float32}, {"a": torch.float64}),
        ({"a": torch.zeros(1)}, {"a": 0.0}),
    ],
)
def test_values_that_resemble_each_other_differ(tmp_path: Path, a: Any, b: Any) -> None:
    found = diff_states(saved(tmp_path / "a.pt", a), saved(tmp_path / "b.pt", b))
    assert found.differences
    assert diff_states(tmp_path / "a.pt", tmp_path / "a.pt").equal


def test_a_tensor_alone_is_a_state(tmp_path: Path) -> None:
    found = diff_states(
        saved(tmp_path / "a.pt", torch.zeros(3)), saved(tmp_path / "b.pt", torch.ones(3))
    )
    assert only(found).name == "the whole file"


def test_what_cannot_be_read_as_bits_is_not_covered_and_not_equal(tmp_path: Path) -> None:
    sparse = {"x": torch.eye(3).to_sparse(), "y": torch.zeros(1)}
    found = diff_states(saved(tmp_path / "a.pt", sparse), saved(tmp_path / "b.pt", sparse))
    assert not found.equal
    assert not found.differences
    assert list(found.not_covered) == ["x"]


def test_the_two_formats_compare(tmp_path: Path) -> None:
    a = tmp_path / "a.safetensors"
    save_file(state(), a, metadata={"format": "pt"})
    assert diff_states(a, saved(tmp_path / "b.pt", state())).equal
    b = tmp_path / "b.safetensors"
    save_file(state(), b, metadata={"format": "np"})
    assert only(diff_states(a, b)).name == "__metadata__.format"


class Foreign:
    """What no state file may hold: loading it runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_code_in_a_file_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("a.pt"), {"x": Foreign()})
    saved(Path("b.pt"), {"x": torch.zeros(1)})
    with pytest.raises(RecordError, match=r"a\.pt holds more than tensors.*mkdir.*state_dict"):
        diff_states(Path("a.pt"), Path("b.pt"))
    assert not Path("executed").exists()
    torch.load("a.pt", weights_only=False)
    assert Path("executed").exists()  # it would have been


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "text", "half"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = saved(tmp_path / name, {"x": torch.zeros(5000)})
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello", "half": content[: len(content) // 2]}[damage])
    with pytest.raises(RecordError, match=f"{name} is truncated or no"):
        diff_states(path, path)


def test_strange_files_end_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'\.txt'.*\.safetensors, \.pt"):
        diff_states(saved(tmp_path / "a.txt", {}), tmp_path / "a.txt")
    circle: list[Any] = []
    circle.append(circle)
    path = saved(tmp_path / "a.pt", circle)
    with pytest.raises(RecordError, match="nested more than 200 deep"):
        diff_states(path, path)
    laughs: list[Any] = [1]
    for _ in range(20):
        laughs = [laughs, laughs]
    saved(path, laughs)
    monkeypatch.setattr(state_files, "_MOST_LEAVES", 1000)
    with pytest.raises(RecordError, match="more than 1000 leaves"):
        diff_states(path, path)
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(RecordError, match="nothing to compare"):
        diff_states(tmp_path / "none.safetensors", tmp_path / "none.safetensors")


def test_progress_ends_with_all(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = saved(tmp_path / "a.pt", state())
    diff_states(path, path, lambda done, total: told.append((done, total)))
    assert told == [(i, 6) for i in range(7)]


def test_memory_stays_near_a_pair_of_tensors(tmp_path: Path) -> None:
    """Two files of 192 MB are compared within 110 MB more than before, of which 2 x 32 MB may be
    pages of the files that were not let go of yet."""
    path = tmp_path / "a.safetensors"
    save_file({f"t{i}": torch.zeros(4 << 20) for i in range(12)}, path)
    code = (
        "import sys, resource, pathlib\n"
        "from nondet_probe.probe.differ.states import diff_states\n"
        "small, large = map(pathlib.Path, sys.argv[1:])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "diff_states(small, small)\n"
        "before = peak()\n"
        "assert diff_states(large, large).tensors == 12\n"
        "print(peak() - before)\n"
    )
    small = tmp_path / "small.safetensors"
    save_file({"t": torch.zeros(4 << 20)}, small)
    done = subprocess.run(
        [sys.executable, "-c", code, str(small), str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 110 << 10
