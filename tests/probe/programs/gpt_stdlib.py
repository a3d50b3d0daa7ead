"""A small GPT of `transformers`, with random weights, learns the source of the standard library.

An ordinary training script: it knows nothing of a probe. `--plant` makes one thing different from a
run without it, at step `--at`.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel

BLOCK = 64

PLANTS = {
    "threads": "another number of threads, from the start",
    "dropout": "the generator that dropout draws from is seeded again",
    "lr": "the learning rate of that step grows by a millionth",
    "weight": "one weight changes by its last bit",
    "order": "the samples come in another order, from the start",
    "initial": "one weight is another one by its last bit, from the start",
    "moment": "one element of AdamW's first moment changes by its last bit",
}


class Source(Dataset):
    """Windows of bytes of the first files of a folder, that of the standard library."""

    def __init__(self, folder: Path, files: int = 20) -> None:
        text = b"\n".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:files])
        self.data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()

    def __len__(self) -> int:
        return (len(self.data) - 1) // BLOCK

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        window = self.data[index * BLOCK : (index + 1) * BLOCK]
        return {"input_ids": window, "labels": window}


def last_bit(tensor: torch.Tensor) -> None:
    """Changes one element by its last bit, through NumPy, where no dispatcher sees it."""
    tensor.detach().view(torch.int32).numpy().reshape(-1)[5] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--plant", choices=PLANTS)
    parser.add_argument("--at", type=int, default=3)
    given = parser.parse_args()

    torch.set_num_threads(given.threads + (given.plant == "threads"))
    torch.manual_seed(1234)
    config = GPT2Config(
        vocab_size=256,
        n_positions=BLOCK,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))
    order = torch.Generator().manual_seed(5 + (given.plant == "order"))
    if given.plant == "initial":
        last_bit(model.transformer.h[0].attn.c_attn.weight)
    loader = DataLoader(Source(given.folder), batch_size=8, shuffle=True, generator=order)

    for step, batch in zip(range(given.steps), loader, strict=False):
        if step == given.at:
            if given.plant == "dropout":
                torch.manual_seed(99)
            elif given.plant == "lr":
                for group in optimizer.param_groups:
                    group["lr"] *= 1 + 1e-6
            elif given.plant == "weight":
                with torch.no_grad():
                    row = model.transformer.h[1].mlp.c_fc.weight[0]
                    row[0] = torch.nextafter(row[0], torch.tensor(torch.inf))
            elif given.plant == "moment":
                last_bit(optimizer.state[model.transformer.h[1].ln_2.bias]["exp_avg"])
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        print(f"step {step} loss {loss.item().hex()}", flush=True)
    bits = sum(int(p.detach().view(torch.int32).long().sum()) for p in model.parameters())
    print(f"weights {bits}", flush=True)


if __name__ == "__main__":
    main()
