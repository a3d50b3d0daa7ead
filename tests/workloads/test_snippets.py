from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nondet_probe.errors import UsageError
from nondet_probe.workloads._snippets import (
    FEWEST,
    LOOKUPS,
    MOST,
    ROWS,
    SIZES,
    SNIPPET,
    STARTS,
    hash_ngrams,
    load_snippets,
)


def fnv1a(gram: bytes) -> int:
    """FNV-1a, 32 bits, one byte at a time; checked against its published vectors below."""
    state = 0x811C9DC5
    for byte in gram:
        state = (state ^ byte) * 0x01000193 % 2**32
    return state


def package(library: Path, name: str, snippets: int, letter: str = "x") -> Path:
    folder = library / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text(letter * SNIPPET * snippets + "rest")
    return folder


def test_hash_is_the_documented_one() -> None:
    assert fnv1a(b"a") == 0xE40C292C
    assert fnv1a(b"foobar") == 0xBF9CF968
    text = np.random.default_rng(0).integers(0, 256, (3, SNIPPET), dtype=np.uint8)
    for size in SIZES:
        rows = hash_ngrams(text, size)
        assert rows.shape == (3, STARTS)
        for snippet in range(3):
            for start in (0, 1, 255, STARTS - 1):
                state = fnv1a(text[snippet, start : start + size].tobytes())
                assert rows[snippet, start] == (state ^ state >> 16) % ROWS


def test_rows_are_all_reachable_and_evenly_used() -> None:
    # 2**24 3-grams would be all of them; a random part must fall on rows as chance would have it.
    text = np.random.default_rng(1).integers(0, 256, (400, SNIPPET), dtype=np.uint8)
    count = np.bincount(hash_ngrams(text, 3).ravel(), minlength=ROWS)
    mean = count.mean()
    assert len(count) == ROWS
    chi_squared = ((count - mean) ** 2 / mean).sum()
    assert abs(chi_squared - ROWS) < 6 * np.sqrt(2 * ROWS)
    # The offence: the low bits of the letters alone crowd into few rows.
    crowded = np.bincount((text[:, :STARTS] & 15).ravel(), minlength=ROWS)
    assert ((crowded - mean) ** 2 / mean).sum() > ROWS + 6 * np.sqrt(2 * ROWS)


def test_the_library_of_this_python() -> None:
    data = load_snippets()
    assert data.rows.shape == (len(data.labels), LOOKUPS)
    assert data.rows.dtype == torch.int16
    assert int(data.rows.min()) >= 0
    assert int(data.rows.max()) < ROWS
    count = torch.bincount(data.labels)
    assert len(count) == len(data.packages) >= 10
    assert int(count.min()) >= FEWEST
    assert int(count.max()) <= MOST
    assert list(data.packages) == sorted(data.packages)
    assert {"asyncio", "email", "json"} <= set(data.packages)


def test_reading_again_gives_the_same() -> None:
    first = load_snippets()
    load_snippets.cache_clear()
    again = load_snippets()
    assert again is not first
    assert again.packages == first.packages
    assert torch.equal(again.rows, first.rows)
    assert torch.equal(again.labels, first.labels)


def test_only_whole_readable_snippets_of_packages_that_are_there(tmp_path: Path) -> None:
    package(tmp_path, "email", 2 * MOST)
    json = package(tmp_path, "json", FEWEST, "y")
    (json / "latin.py").write_bytes(b"\xe9" * SNIPPET * 9)  # not UTF-8
    (json / "data.txt").write_text("y" * SNIPPET * 9)
    (json / "tests").mkdir()
    (json / "tests" / "test_it.py").write_text("y" * SNIPPET * 9)
    package(tmp_path, "html", FEWEST - 1)  # too small
    package(tmp_path, "not_a_library_name", MOST)
    (tmp_path / "xml").mkdir()  # no package
    data = load_snippets(tmp_path)
    assert data.packages == ("email", "json")
    assert torch.bincount(data.labels).tolist() == [MOST, FEWEST]
    # The two are told apart by their text.
    assert not torch.equal(data.rows[0], data.rows[-1])


def test_snippets_are_spread_over_a_large_package(tmp_path: Path) -> None:
    package(tmp_path, "json", FEWEST)
    email = package(tmp_path, "email", MOST, "a")
    (email / "z.py").write_text("z" * SNIPPET * MOST)
    rows = load_snippets(tmp_path).rows[:MOST]
    assert len(rows.unique(dim=0)) == 2
    assert (rows == rows[0]).all(dim=1).sum() == MOST // 2


@pytest.mark.parametrize("packages", [[], ["json"]])
def test_without_sources(tmp_path: Path, packages: list[str]) -> None:
    for name in packages:
        package(tmp_path, name, FEWEST)
    with pytest.raises(UsageError, match=rf"{len(packages)} packages .* Use a Python"):
        load_snippets(tmp_path)
