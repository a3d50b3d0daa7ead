"""A training script that does not know this library: handwritten digits, a small network, SGD.

python examples/train_digits.py --steps 20
nondet-probe reproducible -- examples/train_digits.py --steps 20    # the same bits on any threads
"""

import argparse
import hashlib

import torch
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=20)
steps = parser.parse_args().steps

pixels, labels = load_digits(return_X_y=True)
x = torch.tensor(pixels, dtype=torch.float32) / 16
y = torch.tensor(labels)

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.SiLU(), torch.nn.Linear(256, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

for _step in range(steps):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()

weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
print(f"loss {loss.item():.6f}, weights {digest[:16]}")
