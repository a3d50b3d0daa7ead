"""A residual network with batch normalization learns digits, augmented in a loader's workers.

An ordinary training script: it knows nothing of a probe. `--plant` makes one thing different from a
run without it, at step `--at` where it has one.
"""

from __future__ import annotations

import argparse
import os
import random

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

PLANTS = {
    "worker": "worker 1 seeds numpy with another number",
    "unseeded": "workers seed numpy with what the system gives them",
    "order": "the samples come in another order, from the start",
    "switch": "cudnn.benchmark is turned on, from the start",
    "lr": "the learning rate grows by a millionth, for good",
    "buffer": "one running mean changes by its last bit",
    "threads": "another number of threads, from the start",
}


class Digits(Dataset):
    """8x8 images, shifted by at most a pixel, turned over by chance, with some noise."""

    def __init__(self) -> None:
        found = load_digits()
        self.images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
        self.labels = torch.tensor(found.target)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        image = torch.roll(image, (random.randint(-1, 1), random.randint(-1, 1)), (1, 2))
        if torch.rand(()) < 0.5:
            image = image.flip(1)
        noise = np.random.normal(scale=0.02, size=(1, 8, 8)).astype(np.float32)
        return image + torch.from_numpy(noise), self.labels[index]


class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.short = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.first(x)).relu()
        return (self.norm2(self.second(y)) + self.short(x)).relu()


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(1, 16), Block(16, 16), Block(16, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


class Seeds:
    """What the documentation of PyTorch tells to do about numpy in workers."""

    def __init__(self, plant: str | None) -> None:
        self.plant = plant

    def __call__(self, worker: int) -> None:
        seed = torch.initial_seed() + (self.plant == "worker" and worker == 1)
        if self.plant == "unseeded":
            seed = int.from_bytes(os.urandom(4), "big")
        np.random.seed(seed % 2**32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plant", choices=PLANTS)
    parser.add_argument("--at", type=int, default=3)
    given = parser.parse_args()

    torch.set_num_threads(given.threads + (given.plant == "threads"))
    torch.backends.cudnn.benchmark = given.plant == "switch"
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    model = ResNet().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        Digits(),
        batch_size=32,
        shuffle=True,
        num_workers=given.workers,
        worker_init_fn=Seeds(given.plant),
        generator=torch.Generator().manual_seed(11 + (given.plant == "order")),
    )
    for step, (images, labels) in zip(range(given.steps), loader, strict=False):
        if step == given.at:
            if given.plant == "lr":
                optimizer.param_groups[0]["lr"] *= 1 + 1e-6
            elif given.plant == "buffer":
                mean = model.blocks[1].norm2.running_mean
                mean[0] = torch.nextafter(mean[0], torch.tensor(torch.inf))
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item().hex()}", flush=True)
    bits = sum(int(p.detach().view(torch.int32).long().sum()) for p in model.parameters())
    print(f"weights {bits}", flush=True)


if __name__ == "__main__":
    main()
