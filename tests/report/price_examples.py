"""Rows of price lists that no machine gave, for the words, tables and pages made of them."""

from __future__ import annotations

from collections.abc import Iterator

from nondet_probe.records.figures import Row, Spread

ENVIRONMENT = {
    "machine": {"cpu": "A <CPU>", "cpus": 2},
    "versions": {"torch": "2.13.0", "nondet-probe": "0.1.0"},
    "switches": {"environment": {}},
    "commit": None,
}

# name: (guarantee, times as fast as torch, distinct results)
PROVIDERS = {
    "torch": ("", 1.0, 1),
    "torch deterministic": ("", 0.5, 1),
    "atomic": ("none", 2.0, 7),
    "two_pass": ("run_to_run", 1.5, 1),
    "fixed_order": ("launch_invariant", 1.25, 1),
    "exact": ("correctly_rounded", 0.8, 1),
}


def around(value: float) -> Spread:
    return Spread(value, 0.9 * value, 1.1 * value, 20)


def rows_of(
    op: str = "sum", n: int = 1000, threads: int = 1, *, deterministic: bool = True
) -> Iterator[Row]:
    """One setting; torch takes n nanoseconds and the stream four times less."""
    place = (op, "float32", n, threads)

    def row(
        provider: str, metric: str, unit: str, spread: Spread | None, guarantee: str, note: str = ""
    ) -> Row:
        return Row(place[0], provider, *place[1:], metric, unit, spread, guarantee, note)

    yield row("read stream", "rate", "GB/s", around(16.0), "")
    for name, (guarantee, speed, distinct) in PROVIDERS.items():
        if name == "torch deterministic" and not deterministic:
            yield row(name, "time", "s", None, guarantee, "raises RuntimeError: it <cannot>")
            continue
        yield row(name, "time", "s", around(n * 1e-9 / speed), guarantee)
        yield row(name, "rate", "GB/s", around(4.0 * speed), guarantee)
        yield row(name, "share of read stream", "x", around(0.25 * speed), guarantee)
        if name != "torch":
            yield row(name, "ratio to torch", "x", around(speed), guarantee)
        if name != "torch deterministic":
            spread = around(2 * speed) if deterministic else None
            note = "" if deterministic else "raises RuntimeError: it <cannot>"
            yield row(name, "ratio to torch deterministic", "x", spread, guarantee, note)
        memory = Spread.single(5e6 if name == "two_pass" else 4096, 1)
        yield row(name, "extra memory", "bytes", memory, guarantee, "80 bytes a thread")
        yield row(name, "distinct results", "count", Spread.single(distinct, 20), guarantee)
        yield row(name, "largest error", "ulp", Spread.single(distinct - 1, 20), guarantee)
        value = 1.5e-7 if distinct > 1 else 0.0
        for measure in ("V_s", "V_ermv", "V_c"):
            yield row(name, measure, "1", Spread.single(value, 20), guarantee)


def price_rows() -> list[Row]:
    """Two ops, two sizes, two thread counts; the second op has no deterministic mode in torch."""
    rows: list[Row] = []
    for op in ("sum", "index_add"):
        for n in (1000, 1_000_000):
            for threads in (1, 2):
                rows += rows_of(op, n, threads, deterministic=op == "sum")
    return rows
