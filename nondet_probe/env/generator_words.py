"""The 624 words of 32 bits that the Mersenne twisters of the process draw from.

A generator's state holds more (how many words are used up, a spare normal number), of which not
every value is one that the generator can be in; of the words every value is.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["GENERATORS", "generator_words", "set_generator_words"]

GENERATORS = ("python", "numpy", "torch cpu")
"""By the names that a trace gives them."""

Words = npt.NDArray[np.uint32]

_WORDS = 624
# torch's state: a seed of 8 bytes, two counters of 4, one of 8, and each word in 8 bytes.
_TORCH_WORDS = slice(24, 24 + 8 * _WORDS)


def generator_words(name: str) -> Words:
    """A copy of the words of one of GENERATORS; nothing is drawn.

    Raises ValueError for NumPy's where the program has put another kind of generator there.
    """
    if name == "python":
        return np.array(random.getstate()[1][:_WORDS], np.uint32)
    if name == "numpy":
        return np.array(_numpy_state()["state"]["key"], np.uint32)
    state = torch.default_generator.get_state().numpy()
    return state[_TORCH_WORDS].view(np.uint64).astype(np.uint32)


def set_generator_words(name: str, words: Words) -> None:
    """Put other words into one of GENERATORS, and leave the rest of its state."""
    if name == "python":
        version, state, gauss = random.getstate()
        random.setstate((version, (*words.tolist(), *state[_WORDS:]), gauss))
    elif name == "numpy":
        kept = _numpy_state()
        kept["state"]["key"] = np.array(words, np.uint32)
        np.random.set_state(kept)
    else:
        state = torch.default_generator.get_state()
        state.numpy()[_TORCH_WORDS].view(np.uint64)[:] = words
        torch.default_generator.set_state(state)


def _numpy_state() -> dict[str, Any]:
    state: Any = np.random.get_state(legacy=False)
    if set(state["state"]) != {"key", "pos"}:
        raise ValueError(f"NumPy's generator is a {state['bit_generator']}, no Mersenne twister")
    found: dict[str, Any] = state
    return found
