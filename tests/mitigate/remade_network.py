"""A network of layers and losses that raise on a GPU under torch's deterministic mode. As a program
it prints the digests of its parameters after training on the device that is named:

    python remade_network.py cuda
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

from nondet_probe.bits import digest


class Everything(nn.Module):
    """Layers and losses that raise under the mode on a GPU, or are slow there."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(31, 8, mode="max")
        self.first = nn.Conv2d(1, 5, 3, padding=1)
        self.last = nn.Conv2d(5, 4, 1)
        self.norm = nn.LayerNorm(8)
        self.register_buffer("weight", torch.rand(4))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        maps = self.first(x)
        for mode in ("bilinear", "bicubic"):
            maps = functional.interpolate(maps, scale_factor=2, mode=mode)
            maps = functional.adaptive_avg_pool2d(maps, (8, 9))
        maps = functional.pad(maps, (1, 2, 3, 1), mode="replicate")
        maps = functional.pad(maps, (2, 2, 0, 2), mode="reflect")
        maps, places = functional.max_pool2d(maps, 2, return_indices=True)
        maps = functional.max_unpool2d(maps, places, 2)
        maps = functional.adaptive_max_pool2d(maps, (6, 7))
        turn = torch.tensor([[[0.9, 0.1, 0], [-0.1, 0.9, 0.1]]], device=x.device)
        grid = functional.affine_grid(turn, [1, 1, 6, 7], False)
        maps = functional.grid_sample(maps, grid.expand(len(maps), -1, -1, -1), align_corners=False)
        words = self.norm(self.embed(words))
        maps = self.last(maps) + words.cumsum(1).mean() + maps.flatten(1).median(1).values.sum()
        log_p = maps.log_softmax(1)
        target = log_p.argmax(1)
        loss: Tensor = functional.nll_loss(log_p, target, weight=self.weight)
        return loss + words[torch.tensor([0, 1, 0, 2], device=x.device)].sum()


def train(device: str = "cpu", steps: int = 3) -> list[Tensor]:
    """The parameters after some steps."""
    torch.manual_seed(0)
    model = Everything().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        x, words = torch.rand(3, 1, 6, 7, generator=draw), torch.randint(31, (3, 9), generator=draw)
        optimizer.zero_grad()
        model(x.to(device), words.to(device)).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


if __name__ == "__main__":
    print(*(digest(parameter) for parameter in train(sys.argv[1])))
