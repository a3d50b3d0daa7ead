"""The commands and their options. torch is imported when a command runs, not before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nondet_probe import __version__
from nondet_probe.cli import exit_codes
from nondet_probe.cli.drift_command import drift
from nondet_probe.cli.options import (
    Against,
    AgainstJson,
    AgainstPage,
    Inject,
    IsModule,
    Json,
    K,
    Level,
    Memory,
    Names,
    OtherSide,
    Out,
    OutputsOnly,
    Page,
    RecordOut,
    Replay,
    Script,
    ScriptIsModule,
    Seed,
    Side,
    Sketch,
    Steps,
    Sweep,
    Target,
    Targets,
    Threads,
    Variables,
)
from nondet_probe.cli.twin_command import twin

if TYPE_CHECKING:
    from nondet_probe.cli.session import Session
    from nondet_probe.cli.subject import Subject

__all__ = ["app"]

app = typer.Typer(
    name="nondet-probe",
    help=(
        "Find which op, which line and which changed bit made two PyTorch training runs differ, "
        "and what determinism costs.\n\n" + exit_codes.HELP
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"nondet-probe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def checkup(
    target: Target,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(help="Training steps of the twin.")] = 100,
    k: K = None,
    threads: Threads = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Rerun, twin and the cost of determinism for one workload, and a report to look at."""
    session = _session("checkup", target, seed, threads, out, as_json)

    def body() -> None:
        from nondet_probe.probe.checkup import checkup as run

        session.record = run(
            session.factory(),
            target=target,
            seed=seed,
            k=k,
            twin_steps=steps,
            progress=session.progress,
        )

    session.run(body)


@app.command()
def rerun(
    context: typer.Context,
    target: Targets,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(help="Training steps to look at.")] = 2,
    k: K = None,
    memory: Memory = None,
    sweep: Sweep = False,
    module: IsModule = False,
    threads: Threads = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Execute every op of a training step K times and name those whose bits differ.

    Of a workload, or of a training script: that one is stopped after its optimizer's first steps.
    """
    from nondet_probe.cli.measure import rerun as run

    run(_subject(context, target, module), seed, steps, k, memory, sweep, threads, out, as_json)


@app.command()
def audit(
    context: typer.Context,
    target: Targets,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(help="Training steps to look at.")] = 2,
    k: K = None,
    memory: Memory = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="Merge what was measured of each op into this JSON table."),
    ] = None,
    module: IsModule = False,
    threads: Threads = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Which determinism is requested and which is in force; what the bits of each op depend on."""
    from nondet_probe.cli.measure import audit as run

    subject = _subject(context, target, module)
    run(subject, seed, steps, k, memory, catalogue, threads, out, as_json)


@app.command()
def cost(
    context: typer.Context,
    target: Targets,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(help="Training steps to time in each way.")] = 10,
    module: IsModule = False,
    threads: Threads = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """What determinism costs a training step, and which ops pay; is filling new memory needed?

    A script is run in several processes at once, whose steps take turns.
    """
    from nondet_probe.cli.measure import cost as run

    run(_subject(context, target, module), seed, steps, threads, out, as_json)


app.command()(twin)


@app.command(context_settings={"allow_interspersed_args": False})
def record(
    command: Script,
    out: RecordOut = None,
    level: Level = "module",
    outputs_only: OutputsOnly = False,
    steps: Steps = None,
    names: Names = None,
    sketch: Sketch = False,
    inject: Inject = None,
    module: ScriptIsModule = False,
    against: Against = None,
    html: AgainstPage = None,
    as_json: AgainstJson = False,
) -> None:
    """Record a training script, unchanged: digests of all that can differ between two runs of it.

    The script's output, exit code and signals are its own. Two traces are compared by
    nondet-probe diff. Options go before the script; put -- in between. With --against the exit
    code is that of diff: 0 equal, 1 different, 2 nothing to compare; or the script's, if it fails.
    """
    # Only here: it imports torch.
    from nondet_probe.cli.record import record as run

    run(
        command,
        out,
        module=module,
        level=level,
        outputs_only=outputs_only,
        names=names,
        steps=steps,
        inject=inject,
        against=against,
        html=html,
        as_json=as_json,
        sketch=sketch,
    )


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def reproducible(
    command: Script,
    guarantee: Annotated[
        str,
        typer.Option(
            help="none, run_to_run, launch_invariant, order_invariant or correctly_rounded."
        ),
    ] = "launch_invariant",
    module: ScriptIsModule = False,
    watch: Annotated[
        bool, typer.Option(help="Count the calls that need no other way too (3 us each).")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was rerouted and what was not, as JSON.")
    ] = None,
) -> None:
    """Run a training script so that its bits do not depend on the number of threads.

    The script's output and exit code are its own; what was rerouted, and what the guarantee does
    not reach, is told on stderr at its end. Options go before the script.
    """
    from nondet_probe.mitigate.launch import relaunch

    relaunch(command, guarantee, module=module, watch=watch, report=report)


@app.command()
def bench(
    ops: Annotated[
        str | None, typer.Option(help="Ops, separated by commas; default: all there are.")
    ] = None,
    sizes: Annotated[
        str, typer.Option(help="Numbers of elements: 1000, 64k, 1M (thousands) or 2**20.")
    ] = "1000,1M,16M",
    dtypes: Annotated[
        str, typer.Option(help="Of float64, float32, bfloat16 and float16.")
    ] = "float32",
    threads: Annotated[
        str | None, typer.Option(help="Thread counts, such as 1,2; default: torch's own.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Samples of every call, and results compared.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Directory; default: runs/<time>-bench-<ops>.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The price list: time, memory and error of every variant of every op, beside PyTorch's."""
    # Only here: it imports torch.
    from nondet_probe.cli.bench import bench as run

    run(ops, sizes, dtypes, threads, device, repeats, out, as_json)


@app.command()
def diff(
    a: Side,
    b: OtherSide,
    html: Page = None,
    replay: Replay = False,
    as_json: Json = False,
) -> None:
    """Where two runs begin to differ: the first record, the op, the line, and what follows from it.

    Exit codes: 0 equal, 1 different, 2 they cannot be compared.
    """
    # Only here: it imports torch.
    from nondet_probe.cli.diff import diff as run

    run(a, b, html, replay, as_json)


@app.command(context_settings={"allow_interspersed_args": False})
def bisect(
    command: Script,
    env_b: Variables = None,
    html: Page = None,
    module: ScriptIsModule = False,
    as_json: Json = False,
) -> None:
    """Run a training script in pairs, each recorded more finely where the one before it differed:
    steps, modules, ops. The op that is found is executed again.

    All is kept below runs/<time>-bisect-<script>. Options go before the script; put -- in between.
    """
    # Only here: it imports torch.
    from nondet_probe.cli.bisect import bisect as run

    run(command, module=module, env_b=env_b or [], html=html, as_json=as_json)


app.command()(drift)


@app.command()
def show(
    run: Annotated[
        Path,
        typer.Argument(
            help="A trace, or the directory of a checkup, rerun or twin.",
            metavar="RUN",
            show_default=False,
        ),
    ],
    step: Annotated[
        int | None, typer.Option(help="Records of this step only; -1 is the setup.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON: of a trace one object a line, a record each.")
    ] = False,
) -> None:
    """List one trace, record by record, or show the result of a run again."""
    from nondet_probe.cli.listing import show as list_run

    list_run(run, step, as_json)


@app.command()
def env(as_json: Json = False) -> None:
    """Machine, versions, the switches that decide about determinism, and the backends of ops: which
    are usable here, and why the others are not."""
    from nondet_probe.cli.show import show_environment

    show_environment(as_json)


def _subject(context: typer.Context, target: list[str], module: bool) -> Subject:
    from nondet_probe.cli.subject import subject_of

    given = context.get_parameter_source("seed")
    return subject_of(
        target, module=module, seeded=given is not None and given.name == "COMMANDLINE"
    )


def _session(
    command: str, target: str, seed: int, threads: int | None, out: Path | None, as_json: bool
) -> Session:
    # Only here: a session imports torch.
    from nondet_probe.cli.session import Session

    return Session(command, target, seed, threads, out, as_json)
