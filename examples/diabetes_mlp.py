"""Your own workload: a function of a seed that returns a Workload.

    nondet-probe checkup examples/diabetes_mlp.py:train

A small regression network on scikit-learn's diabetes data (442 real patients, no download).
"""

import torch
from sklearn.datasets import load_diabetes

from nondet_probe import Workload


def train(seed: int) -> Workload:
    # The probe seeds every random stream before it calls this: the weights need no seed here.
    model = torch.nn.Sequential(torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    features, disease = load_diabetes(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32)
    y = torch.tensor((disease - disease.mean()) / disease.std(), dtype=torch.float32)[:, None]

    def batches():
        order = torch.Generator().manual_seed(seed)
        while True:
            for rows in torch.randperm(len(x), generator=order).split(64):
                yield x[rows], y[rows]

    def loss(model, batch):
        inputs, wanted = batch
        return torch.nn.functional.mse_loss(model(inputs), wanted)

    return Workload(model, optimizer, batches(), loss)
