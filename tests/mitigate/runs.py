"""Training runs of small networks for the proofs, in a process of their own:

    python runs.py <threads> <how> <network>...

how: "context" (entered after a warm-up product) or "plain" (the default, and under the launcher).
Prints, as JSON, the digests of all parameters and buffers of each network after STEPS steps, and
what `reproducible` reports.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import nondet_probe
from nondet_probe.bits import digest
from nondet_probe.workload import Workload, take_step

STEPS = 20


class Encoder(nn.Module):
    """torch's own encoder, odd sizes, with a loss over tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            68, 4, 145, dropout=0.1, activation="gelu", batch_first=True
        )
        self.embed = nn.Embedding(301, 68)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(68, 301)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embed(tokens)))
        return logits


class Images(nn.Module):
    """Every kind of layer that a thread count is known to reach, odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 18, 3, padding=1), nn.BatchNorm2d(18), nn.SiLU(),
            nn.Conv2d(18, 18, 3, padding=1, groups=18), nn.GroupNorm(3, 18), nn.SiLU(),
            nn.Conv2d(18, 31, 5, stride=2), nn.BatchNorm2d(31), nn.ELU(),
            nn.Conv2d(31, 31, 7, padding=3, groups=31), nn.Mish(),
            nn.Conv2d(31, 17, 1), nn.Softplus(), nn.GELU(approximate="tanh"),
        )  # fmt: skip
        self.head = nn.Linear(17, 7)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.head(torch.sigmoid(maps).mean((2, 3)))
        return logits


class Large(nn.Module):
    """Rows and losses of so many elements that ops of the library answer, and float16."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 1003))
        self.normal = nn.LayerNorm(1003)
        self.short = nn.Linear(1003, 65, dtype=torch.float16)
        self.register_buffer("seen", torch.zeros(31))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.normal(x * self.scale)
        with torch.no_grad():
            part = x[:101]
            self.seen += torch.histogram(part, 31, range=(-3, 3), weight=part.cos()).hist
        return x, x.softmax(-1), self.short(x[:67].half())


def encoder(seed: int) -> Workload:
    def batches() -> Iterator[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randint(301, (9, 61), generator=draw)

    def loss(model: nn.Module, tokens: Tensor) -> Tensor:
        return nn.functional.cross_entropy(
            model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        )

    model = Encoder()
    return Workload(model, torch.optim.AdamW(model.parameters(), lr=1e-3), batches(), loss)


def images(seed: int) -> Workload:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(seed)
        while True:
            yield torch.rand(13, 3, 37, 35, generator=draw), torch.rand(13, 7, generator=draw)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1]) + model(batch[0]).abs().prod()

    model = Images()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    return Workload(model, optimizer, batches(), loss)


def large(seed: int) -> Workload:
    def batches() -> Iterator[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        while True:
            yield torch.rand(2097, 1003, generator=draw)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        y, shares, short = model(x)
        losses = nn.functional.mse_loss(y, x) + nn.functional.smooth_l1_loss(y, x)
        losses = losses + nn.functional.binary_cross_entropy(shares, x)
        losses = losses + nn.functional.binary_cross_entropy_with_logits(y, x)
        return losses + y.std() + y.var(0).mean() + y.norm() / 1000 + short.float().square().mean()

    model = Large()
    return Workload(model, torch.optim.SGD(model.parameters(), lr=0.01), batches(), loss)


def builtin(name: str) -> Callable[[int], Workload]:
    from nondet_probe.workloads import load_target

    return load_target(name)


NETWORKS: dict[str, Callable[[int], Workload]] = {
    "digits-cnn": lambda seed: builtin("digits-cnn")(seed),
    "snippets-hashed": lambda seed: builtin("snippets-hashed")(seed),
    "encoder": encoder,
    "images": images,
    "large": large,
}


def train(network: str, threads: int, steps: int = STEPS) -> str:
    """The digest of every parameter and buffer after training."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    workload = NETWORKS[network](0)
    batches = iter(workload.batches)
    for _ in range(steps):
        assert torch.get_num_threads() == threads
        take_step(workload, next(batches))
        assert torch.get_num_threads() == threads
    state = workload.model.state_dict()
    return " ".join(str(digest(x)) for x in state.values() if x.is_floating_point())


def main() -> None:
    threads, how, *networks = sys.argv[1:]
    torch.rand(64, 64) @ torch.rand(64, 64)
    told = {}
    if how == "context":
        with nondet_probe.reproducible() as run:
            digests = {network: train(network, int(threads)) for network in networks}
        told = run.report().as_dict()
    else:
        digests = {network: train(network, int(threads)) for network in networks}
    print(json.dumps({"digests": digests, "report": told}))


if __name__ == "__main__":
    main()
