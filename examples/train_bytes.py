"""A small language model of bytes, trained on the source code of one of Python's modules.

    python examples/train_bytes.py --steps 30

The table of pairs is read with an index, and the backward pass of that races on two threads: two
runs of this script do not give the same weights. `nondet-probe diff` says why.
"""

from __future__ import annotations

import argparse
import inspect
import typing

import torch
from torch import Tensor, nn
from torch.nn import functional

LENGTH, WIDTH, HEADS, BATCH, PAIRS = 64, 64, 4, 32, 1024


class Bytes(nn.Module):
    """Bytes [batch, length] to vectors: one of a byte, one of it and the byte before it, hashed."""

    def __init__(self) -> None:
        super().__init__()
        self.single = nn.Embedding(256, WIDTH)
        self.pairs = nn.Parameter(torch.randn(PAIRS, WIDTH) * 0.1)

    def forward(self, text: Tensor) -> Tensor:
        before = text.roll(1, dims=1)
        return self.single(text) + self.pairs[(text * 31 + before) % PAIRS]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = Bytes()
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, 256)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, text: Tensor) -> Tensor:
        return self.head(self.layer(self.bytes(text), src_mask=self.mask, is_causal=True))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--lr", type=float, default=3e-3)
    asked = options.parse_args()
    torch.manual_seed(0)
    text = torch.tensor(list(inspect.getsource(typing).encode()))
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=asked.lr)
    for _ in range(asked.steps):
        starts = torch.randint(0, len(text) - LENGTH - 1, (BATCH, 1))
        batch = text[starts + torch.arange(LENGTH + 1)]
        guess = model(batch[:, :-1])
        loss = functional.cross_entropy(guess.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.9f} after {asked.steps} steps")


if __name__ == "__main__":
    main()
