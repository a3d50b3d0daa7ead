"""What makes one changed bit grow: depth, activation, BatchNorm, or the batches?

    python examples/depth_and_shape.py                          # some minutes
    python examples/depth_and_shape.py --depths 0,1 --seeds 0 --steps 60

Every cell is a member of the built-in family `digits-mlp`. Its twin has the lowest bit of one
weight of the last layer changed before the first step. A row a twin goes to depth_and_shape.csv,
the figure to depth_and_shape.svg, and a table in Markdown, medians over the seeds, to the terminal.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

import nondet_probe
from nondet_probe.workloads import load_target
from nondet_probe.workloads.digits_mlp import DEPTHS, Shape

COLOURS = {"relu": "#00558c", "smelu": "#b3450a"}
ROUNDING = 2.0**-24
"""Half the distance of two neighbouring float32 numbers, over the smaller one."""
ABSORBED = 1e-11
"""Where a distance of 0 is drawn."""


def words(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(word) for word in words(text)]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One changed bit, by depth and shape.")
    parser.add_argument("--depths", type=numbers, default=[0, 1, 2, 4, 8])
    parser.add_argument("--activations", type=words, default=["relu", "smelu"])
    parser.add_argument("--norms", type=words, default=["plain", "norm"])
    parser.add_argument("--batches", type=words, default=["mini", "full"])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path())
    asked = parser.parse_args()
    for given, known in (
        (asked.depths, list(DEPTHS)),
        (asked.activations, ["relu", "smelu"]),
        (asked.norms, ["plain", "norm"]),
        (asked.batches, ["mini", "full"]),
    ):
        if not set(given) <= set(known):
            parser.error(f"{given}: known are {known}")
    return asked


def shapes(asked: argparse.Namespace) -> list[Shape]:
    """Each cell once: a linear model has neither activation nor BatchNorm."""
    cells = product(asked.batches, asked.depths, asked.activations, asked.norms)
    every = [
        Shape(depth, activation, norm == "norm", batches == "full")
        for batches, depth, activation, norm in cells
    ]
    return list({shape.name: shape for shape in every}.values())


def followed(shape: Shape, seed: int, steps: int) -> dict[str, Any]:
    """One row: the fate of the changed bit of one run."""
    factory = load_target(f"digits-mlp-{shape.name}")
    record = nondet_probe.twin(factory, seed=seed, steps=steps, name="out.weight")
    if not record.control_identical or record.fate is None:
        raise SystemExit(f"{shape.name}: the control differs in {record.control_differs_name}")
    growth, outputs = record.growth, record.predictions
    return {
        "batches": "full" if shape.full else "mini",
        "depth": shape.depth,
        "activation": shape.activation if shape.depth else "",
        "norm": "norm" if shape.norm and shape.depth else "",
        "seed": seed,
        "index": record.change.index,
        "steps": record.steps,
        "fate": record.fate.verdict,
        "fate_step": record.fate.step,
        "growth": growth.rate if growth is not None else None,
        "growth_low": growth.low if growth is not None else None,
        "growth_high": growth.high if growth is not None else None,
        "no_growth": record.no_growth,
        "final_distance": float(record.series["distance"][-1]),
        "final_share": float(record.series["fraction"][-1]),
        "disagreement": outputs.disagreement if outputs is not None else None,
        "loss": float(record.series["loss"][-1]),
        "accuracy": record.evaluation["accuracy"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line a cell: fates counted; medians over the seeds (of the growth, those that have one)."""
    lines = [
        "| batches | hidden layers | activation | BatchNorm | fate | growth exponent a step "
        "| final relative distance | elements that differ | predictions that differ | accuracy |",
        "| - " * 10 + "|",
    ]
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["batches"], row["depth"], row["activation"], row["norm"])
        cells.setdefault(key, []).append(row)
    for (batches, depth, activation, norm), cell in cells.items():
        fates = Counter(row["fate"] for row in cell)
        rates = [row["growth"] for row in cell if row["growth"] is not None]
        growth = f"{median(rates):.2g} ({len(rates)} of {len(cell)})" if rates else "none"
        middle = {
            name: median(row[name] for row in cell)
            for name in ("final_distance", "final_share", "disagreement", "accuracy")
        }
        told = ", ".join(f"{fate} {count}" for fate, count in fates.items())
        lines.append(
            f"| {batches} | {depth} | {activation or '-'} | {'yes' if norm else '-'} | {told} "
            f"| {growth} | {middle['final_distance']:.1e} | {middle['final_share']:.0%} "
            f"| {middle['disagreement']:.1%} | {middle['accuracy']:.1%} |"
        )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Final distance by depth: a point a twin, a line through the medians."""
    import matplotlib
    from matplotlib.figure import Figure

    kinds = sorted({row["batches"] for row in rows}, reverse=True)
    depths = sorted({row["depth"] for row in rows})
    curves = sorted({(row["activation"], row["norm"]) for row in rows if row["activation"]})
    figure = Figure(figsize=(4.6 * len(kinds), 4), layout="constrained")
    every = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, batches in zip(every, kinds, strict=True):
        for activation, norm in curves or [("", "")]:
            own = [
                row
                for row in rows
                if row["batches"] == batches
                and (row["depth"] == 0 or (row["activation"], row["norm"]) == (activation, norm))
            ]
            look = {
                "color": COLOURS.get(activation, "#5b6470"),
                "marker": "s" if norm else "o",
                "linestyle": "--" if norm else "-",
            }
            at = [depths.index(row["depth"]) for row in own]
            reached = [max(row["final_distance"], ABSORBED) for row in own]
            axes.plot(at, reached, **(look | {"linestyle": ""}), alpha=0.35, markersize=4)
            places = sorted(set(at))
            middles = [
                median(y for x, y in zip(at, reached, strict=True) if x == place)
                for place in places
            ]
            label = (activation or "linear") + (" with BatchNorm" if norm else "")
            axes.plot(places, middles, **look, label=label, markersize=6)
        axes.axhline(ROUNDING, color="#5b6470", linewidth=1, linestyle=":")
        axes.set_yscale("log")
        axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        axes.set_xlabel("hidden layers")
        axes.set_title("mini batches of 256" if batches == "mini" else "all images in each batch")
        axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    every[0].set_ylabel("final distance over norm")
    every[-1].legend(frameon=False, fontsize=9)
    with matplotlib.rc_context({"svg.hashsalt": "depth-and-shape", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    asked = parsed()
    torch.set_num_threads(1)  # such small networks gain nothing from more
    every = list(product(shapes(asked), asked.seeds))
    rows = []
    for number, (shape, seed) in enumerate(every, start=1):
        print(f"\r{number} of {len(every)}: {shape.name}, seed {seed}    ", end="", flush=True)
        rows.append(followed(shape, seed, asked.steps))
    print()
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "depth_and_shape.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, asked.out / "depth_and_shape.svg")
    print(table(rows))


if __name__ == "__main__":
    main()
