from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nondet_probe.env.generator_words import GENERATORS, generator_words, set_generator_words
from nondet_probe.env.rng import RngState, preserved_rng, seed_all

DRAWS = {
    "python": lambda: [random.random() for _ in range(700)],
    "numpy": lambda: np.random.rand(700).tolist(),
    "torch cpu": lambda: torch.rand(1400).tolist(),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_words_read_and_put_back_change_nothing(name: str) -> None:
    with preserved_rng():
        seed_all(5)
        DRAWS[name]()
        before = RngState.capture()
        words = generator_words(name)
        assert (words.dtype, words.shape) == (np.uint32, (624,))
        set_generator_words(name, words)
        assert RngState.capture().same_as(before)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("word", [1, 300, 623])
def test_another_word_is_another_stream_and_the_same_again(name: str, word: int) -> None:
    with preserved_rng():
        seed_all(5)
        state = RngState.capture()
        plain = DRAWS[name]()
        state.restore()
        words = generator_words(name)
        words[word] ^= np.uint32(1 << 31)
        set_generator_words(name, words)
        assert DRAWS[name]() != plain
        state.restore()
        words = generator_words(name)
        words[word] ^= np.uint32(1)
        set_generator_words(name, words)
        words[word] ^= np.uint32(1)
        set_generator_words(name, words)
        assert RngState.capture().same_as(state)


def test_they_are_the_words_of_the_same_generator() -> None:
    # torch and NumPy seed it alike.
    with preserved_rng():
        seed_all(7)
        assert np.array_equal(generator_words("torch cpu"), generator_words("numpy"))


def test_another_kind_of_generator_is_refused() -> None:
    class Other:
        pass

    with preserved_rng():
        state = np.random.get_state(legacy=False)
        before = np.random.get_bit_generator()
        try:
            np.random.set_bit_generator(np.random.PCG64(1))
            with pytest.raises(ValueError, match="NumPy's generator is a PCG64, no Mersenne"):
                generator_words("numpy")
        finally:
            np.random.set_bit_generator(before)
        assert np.array_equal(
            np.random.get_state(legacy=False)["state"]["key"], state["state"]["key"]
        )
