"""`nondet-probe bench`: parse what to measure, measure it, keep rows as they come, show them."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nondet_probe.cli import exit_codes
from nondet_probe.cli.place import (
    MAX_THREADS,
    claim_directory,
    give_back,
    interrupts_wait,
    require_report_libraries,
    stdout_to_stderr,
)
from nondet_probe.cli.show import show_prices
from nondet_probe.env import snapshot
from nondet_probe.errors import UsageError, near_matches, unknown_name
from nondet_probe.metrics import MEASURES
from nondet_probe.ops import ops as known_ops
from nondet_probe.probe.cases import CASES
from nondet_probe.probe.meters import ON_GPU, meter_of
from nondet_probe.probe.pricelist import DTYPES, Request, price_list
from nondet_probe.probe.timing import keep_memory
from nondet_probe.records.figures import Row, append_rows, origin_of
from nondet_probe.records.prices import COLUMNS_OF_PRICES, broken_promises
from nondet_probe.report.html import write_page
from nondet_probe.report.pricepage import render_prices

__all__ = ["bench", "parse_request", "parse_size"]

ROWS_FILE = "prices.csv"
PAGE_FILE = "prices.html"

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_LARGEST = 2**40


def bench(
    ops: str | None,
    sizes: str,
    dtypes: str,
    threads: str | None,
    device: str,
    repeats: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run the command with its options as they were typed; leaves with the exit code."""
    request = parse_request(ops, sizes, dtypes, threads, device, repeats)
    require_report_libraries()
    directory = claim_directory(out, "bench", "-".join(request.ops) if ops else "all")
    keep_memory()
    found = snapshot() | {"device": meter_of(request.device).name}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    rows: list[Row] = []
    try:
        interrupted = _measure(request, origin_of(found), directory / ROWS_FILE, rows, as_json)
    finally:
        if not rows:
            give_back(directory)
    if interrupted and not rows:
        typer.echo("nondet-probe: interrupted before anything was measured", err=True)
        raise typer.Exit(exit_codes.FAILED)
    shapes = {
        case.name: f"{case.shape}; in torch: {case.as_torch}"
        for op in request.ops
        for case in CASES[op]
    }
    page = directory / PAGE_FILE
    write_page(render_prices(rows, found, shapes, created, interrupted), page)
    show_prices(rows, found, page, directory / ROWS_FILE, interrupted, as_json)
    if interrupted:
        typer.echo("nondet-probe: interrupted; what was measured before is kept", err=True)
        raise typer.Exit(exit_codes.FAILED)
    raise typer.Exit(exit_codes.FOUND if broken_promises(rows) else exit_codes.CLEAN)


def _measure(
    request: Request, origin: Mapping[str, str], file: Path, rows: list[Row], as_json: bool
) -> bool:
    """Measure into `rows`, and into `file` as they come. Returns whether it was interrupted."""
    quiet = stdout_to_stderr() if as_json else contextlib.nullcontext()
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    try:
        with quiet, bars:
            bar = bars.add_task("price list", total=request.settings())

            def progress(what: str, done: int, total: int) -> None:
                bars.update(bar, description=what, completed=done, total=total)

            for new in price_list(request, MEASURES, progress):
                with interrupts_wait():  # a row in the file is a row on the page
                    append_rows(file, new, origin, COLUMNS_OF_PRICES)
                    rows += new
    except KeyboardInterrupt:
        return True
    return False


def parse_request(
    ops: str | None, sizes: str, dtypes: str, threads: str | None, device: str, repeats: int
) -> Request:
    """The options as they were typed. UsageError says what is wrong and what is allowed."""
    names = _split("--ops", ops) if ops is not None else list(known_ops())
    for name in names:
        if name not in known_ops():
            raise unknown_name("op", name, known_ops())
    kinds = _split("--dtypes", dtypes)
    for kind in kinds:
        if kind not in DTYPES:
            raise unknown_name("dtype", kind, DTYPES)
    counts = [torch.get_num_threads() if device == "cpu" else ON_GPU]
    if threads is not None:
        if device != "cpu":
            raise UsageError(f"--threads {threads}: threads are the CPU's, not of {device}")
        counts = [_threads(text) for text in _split("--threads", threads)]
    return Request(
        ops=names,
        sizes=[parse_size(text) for text in _split("--sizes", sizes)],
        dtypes=[DTYPES[kind] for kind in kinds],
        threads=counts,
        repeats=repeats,
        device=device,
    )


def _split(option: str, text: str) -> Sequence[str]:
    """The items of a list with commas, each once."""
    items = list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))
    if not items:
        raise UsageError(f"{option}: an empty list; leave the option away for its default")
    return items


def parse_size(text: str) -> int:
    """ "1000", "64k", "1M", "2G" (thousands, not 1024s) or "2**20"."""
    power = re.fullmatch(r"(\d{1,9})\*\*(\d{1,2})", text)
    plain = re.fullmatch(r"(\d{1,15})([A-Za-z]*)", text)
    if power:
        size: int = int(power[1]) ** int(power[2])
    elif plain and plain[2] in _UNITS:
        size = int(plain[1]) * _UNITS[plain[2]]
    else:
        near = near_matches(plain[2].swapcase(), _UNITS) if plain else []
        hint = f"; did you mean {plain[1]}{near[0]}?" if plain and near else "."
        raise UsageError(
            f"--sizes: {text!r} is no number of elements{hint} Taken are 1000, 64k, 1M, 2G "
            "(thousands) and 2**20"
        )
    if not 1 <= size <= _LARGEST:
        raise UsageError(f"--sizes: {text} is not from 1 to 2**40 elements")
    return size


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise UsageError(
            f"--threads: {text!r} is no thread count; at least 1 and at most {MAX_THREADS}"
        )
    return int(text)
