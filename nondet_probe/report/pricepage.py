"""The price list as one HTML file that needs nothing else: no request, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nondet_probe.records.figures import Row
from nondet_probe.records.prices import broken_promises
from nondet_probe.report.html import template
from nondet_probe.report.prices import Group, grouped, overview, price_verdict
from nondet_probe.report.pricetables import price_table
from nondet_probe.report.spell import count, one_line, plural, threads
from nondet_probe.report.tables import Table, environment

__all__ = ["METHOD", "METHOD_ON_GPU", "render_prices"]

_OVERVIEW = (
    "The fastest variant that gives the guarantee of the column or a stronger one, at the largest "
    "size and thread count measured. 2x is twice as fast as PyTorch's default; 0.5x takes twice as "
    "long. PyTorch has one switch, its deterministic mode, and promises no more than the same bits "
    "from run to run."
)

METHOD = (
    "All calls of one setting (op, dtype, size, threads) take turns in one process, in an order "
    "drawn anew each round, after two rounds that are not kept. A call shorter than 200 µs is made "
    "several times a sample.",
    "Figures are medians over the repeats with the quartiles below them; a ratio is the median of "
    "the ratios within the rounds.",
    "The read stream is a loop that does nothing but read the op's inputs, in the same rounds, on "
    "the same threads. The rate of an op counts each input as read once and each result as written "
    "once; its share compares that with the stream.",
    "Different results: how many of the repeats' results had different bits, all inputs being the "
    "same. The largest error is the distance of any element to that of the variant `exact`.",
    "V_s, V_ermv and V_c (Shanmugavelu et al. 2024, arXiv 2408.05148) compare each repeat with the "
    "first one; the value largest in magnitude is given. They are 0 where all bits agree.",
    "Extra memory is the high-water mark of the process's resident memory during one call, less "
    "the result; below 1 MiB that cannot be told. The second line is what the variant declares.",
)

METHOD_ON_GPU = (
    "All calls of one setting (op, dtype, size) take turns in one process, in an order drawn anew "
    "each round, after two rounds that are not kept. Each is timed by events on the device's "
    "stream, after a read of four times the second-level cache: inputs come from memory.",
    METHOD[1],
    "The read stream is a copy of the op's inputs on the device, in the same rounds; its rate "
    "counts what it reads and what it writes. The rate of an op counts each input as read once and "
    "each result as written once; its share compares that with the stream.",
    *METHOD[3:5],
    "Extra memory is the high-water mark of PyTorch's allocator on the device during one call, "
    "less the result. The second line is what the variant declares.",
)

_GLOSSARY = {
    "variant": "one algorithm for an op; it states what it guarantees",
    "run to run": "the same bits on the same machine with the same launch, such as the number of "
    "threads",
    "any launch": "the same bits for any number of threads and any instruction set",
    "any order": "the same bits also when the addends come in another order",
    "correctly rounded": "the exact result, rounded once",
    "deterministic mode": "torch.use_deterministic_algorithms(True): PyTorch picks repeatable "
    "kernels where it has them and refuses ops that have none",
    "ulp": "unit in the last place: two floating-point numbers that are direct neighbours are one "
    "ulp apart",
    "read stream": "reading memory and doing as good as nothing with it: the speed that no op "
    "which reads its inputs once can exceed by much",
}


class _Picture(NamedTuple):
    title: str
    svg: str
    caption: str


def render_prices(
    rows: Sequence[Row],
    found: Mapping[str, Any],
    shapes: Mapping[str, str],
    created: str,
    interrupted: bool = False,
) -> str:
    """The page as the text of an HTML document; the same arguments give the same bytes.

    found: `nondet_probe.env.snapshot()`, with "device" where that is not the CPU. shapes: what is
    measured of each op, in words.
    created: when, for people. Raises UsageError when jinja2 or matplotlib is missing.
    """
    page = template("prices.html.jinja")
    from nondet_probe.report.svg import variables

    groups = grouped(rows)
    broken = broken_promises(rows)
    outcome, name = "clean", "Every promise kept"
    if broken:
        outcome, name = "nondeterministic", plural(len(broken), "broken promise")
    elif interrupted:
        outcome, name = "unknown", "Interrupted"
    machine = found["machine"]
    on_cpu = found.get("device", "cpu") == "cpu"
    return page.render(
        outcome=outcome,
        outcome_name=name,
        verdict=price_verdict(rows, interrupted),
        machine=one_line(
            f"{machine['cpu']}, {plural(machine['cpus'], 'processor')}"
            if on_cpu
            else found["device"]
        ),
        created=one_line(created),
        overview=overview(groups),
        sections={"overview": _OVERVIEW},
        ops=_sections(groups, shapes),
        method=METHOD if on_cpu else METHOD_ON_GPU,
        facts=Table("Where it ran", ["What", "Value"], environment(found).rows),
        glossary=_GLOSSARY,
        light=variables(dark=False),
        dark=variables(dark=True),
    )


def _sections(groups: Sequence[Group], shapes: Mapping[str, str]) -> list[dict[str, Any]]:
    """One section an op and dtype; its tables from the largest size down."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.op, group.dtype), []).append(group)
    sections = []
    for number, ((op, dtype), of_op) in enumerate(found.items()):
        order = sorted(of_op, key=lambda group: (-group.n, -group.threads))
        sections.append(
            {
                "title": f"{one_line(op)}, {dtype}",
                "shape": f"Measured: {shapes[op]}." if op in shapes else "",
                "pictures": _pictures(order, f"op{number}"),
                "tables": [price_table(group) for group in order],
            }
        )
    return sections


def _pictures(order: Sequence[Group], key: str) -> list[_Picture]:
    from nondet_probe.report.priceplots import rate_plot, speed_plot, threads_key

    largest = [group for group in order if group.n == order[0].n]
    drawn = [
        (
            f"Speed beside PyTorch's, n = {count(order[0].n)}",
            speed_plot(largest[::-1], f"{key}-speed"),
            f"Dot: median; line: the middle half of the rounds. {threads_key(largest)}",
        ),
        (
            f"Rate over the size, {threads(order[0].threads)}",
            rate_plot([g for g in order if g.threads == order[0].threads], f"{key}-rate"),
            "Both axes count in powers of ten. Dashed: reading the inputs and nothing else.",
        ),
    ]
    return [_Picture(title, svg, caption) for title, svg, caption in drawn if svg is not None]
