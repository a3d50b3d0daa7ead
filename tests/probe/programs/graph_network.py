"""A graph network classifies digits by their neighbours: messages go along edges and are added up.

An ordinary training script: it knows nothing of a probe. `--plant` makes one thing different from a
run without it, at step `--at` where it has one. With `--gather index` messages are read as
`x[edge]`, the gradient of which is nondeterministic from two threads up.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import nn

PLANTS = {
    "threads": "another number of threads, from the start",
    "dropout": "the generator that dropout draws from is seeded again",
    "lr": "the learning rate grows by a millionth, for good",
    "edge": "two edges change places, from the start",
    "weight": "one weight changes by its last bit",
    "flag": "torch's deterministic mode is turned on, from the start",
}


class Layer(nn.Module):
    """Adds to each node what its neighbours send, by `index_add` or by `scatter_add`."""

    def __init__(self, width: int, add: str, gather: str) -> None:
        super().__init__()
        self.message = nn.Linear(width, width)
        self.update = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.1)
        self.add = add
        self.gather = gather

    def forward(self, x: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        sent = self.message(x)
        sent = sent[source] if self.gather == "index" else sent.index_select(0, source)
        received = torch.zeros_like(x)
        if self.add == "index_add":
            received = received.index_add(0, target, sent)
        else:
            received = received.scatter_add(0, target[:, None].expand_as(sent), sent)
        return x + self.dropout(self.update(torch.cat([x, received], 1)).relu())


class GraphNetwork(nn.Module):
    def __init__(self, width: int, gather: str) -> None:
        super().__init__()
        self.embed = nn.Linear(64, width)
        self.layers = nn.ModuleList(
            [Layer(width, "index_add", gather), Layer(width, "scatter_add", gather)]
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, source, target)
        return self.head(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gather", choices=("select", "index"), default="select")
    parser.add_argument("--neighbours", type=int, default=20)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--plant", choices=PLANTS)
    parser.add_argument("--at", type=int, default=3)
    given = parser.parse_args()

    torch.set_num_threads(given.threads + (given.plant == "threads"))
    torch.use_deterministic_algorithms(given.plant == "flag")
    torch.manual_seed(21)
    digits = load_digits()
    nodes = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    edges = kneighbors_graph(digits.data, given.neighbours).tocoo()
    source, target = torch.tensor(edges.col).long(), torch.tensor(edges.row).long()
    if given.plant == "edge":
        # The sums have other orders of their addends.
        order = torch.arange(len(source))
        order[[0, 9]] = order[[9, 0]]
        source, target = source[order], target[order]
    model = GraphNetwork(given.width, given.gather).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(given.steps):
        if step == given.at:
            if given.plant == "dropout":
                torch.manual_seed(99)
            elif given.plant == "lr":
                optimizer.param_groups[0]["lr"] *= 1 + 1e-6
            elif given.plant == "weight":
                with torch.no_grad():
                    row = model.layers[1].update.weight[0]
                    row[0] = torch.nextafter(row[0], torch.tensor(torch.inf))
        loss = nn.functional.cross_entropy(model(nodes, source, target), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item().hex()}", flush=True)
    bits = sum(int(p.detach().view(torch.int32).long().sum()) for p in model.parameters())
    print(f"weights {bits}", flush=True)


if __name__ == "__main__":
    main()
