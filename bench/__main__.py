"""The command line: parse, call, print; nothing else. The only place that sees all four packages."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import __version__, catalogue, plugins
from bench.commands import calibrating
from bench.commands.console import (
    INTERRUPTED,
    NOTHING_MEASURED,
    Data,
    Device,
    LabelColumn,
    Plugins,
    TextColumn,
    fail,
    unwritten,
    usage_errors,
)
from bench.commands.gate import calibration_, gate
from bench.commands.history import history
from bench.commands.init import init
from bench.composition import compose
from bench.plans import customise, known_plan
from bench.registry import techniques
from bench.spec import Phase, Plan, parse_composition
from harness import conformance
from harness.doctor import diagnose
from harness.driver import overlooked
from harness.nursery import Nursery
from harness.prepare import TASK_TIMEOUT_S, Prepared, look, prepare
from harness.record import Machine, Record, Status
from harness.sweep import Sweep, check_resumable
from reports import export, html, listing, markdown, sentences, terminal
from reports.live import Live
from results import store
from results.compare import Comparison, compare, most_telling
from results.idle import ErrorRate, error_rate, load
from results.runs import compare_runs, incomparable

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


TRACED = (Status.CRASHED, Status.OOM, Status.DIVERGED, Status.TIMEOUT)
"""Arms that ended so may have left a traceback in the run's log."""


class Listing(StrEnum):
    TECHNIQUES = "techniques"
    MODELS = "models"
    PLANS = "plans"


ROWS = {
    Listing.TECHNIQUES: catalogue.technique_rows,
    Listing.MODELS: catalogue.model_rows,
    Listing.PLANS: catalogue.plan_rows,
}


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trainpace {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which training speed-up is worth turning on for my model on my machine, and what does it cost?"""


@app.command()
def run(
    plan: Annotated[str | None, typer.Argument(help="A named plan: see `trainpace list plans`.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="FAMILY/SIZE, FILE.py:FUNCTION, a model folder or a Hugging Face id. May repeat."),
    ] = None,
    technique: Annotated[
        list[str] | None, typer.Option(help="A technique, or several joined by +. May repeat.")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Default: cuda where torch sees a GPU.")] = None,
    phase: Annotated[Phase | None, typer.Option(help="Pretrain (the default), finetune or infer.")] = None,
    plugin: Plugins = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples of one update over all ranks.")] = None,
    sequence: Annotated[int | None, typer.Option(min=1, help="Tokens of one sample.")] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Least number of fresh processes an arm.")] = None,
    budget: Annotated[float | None, typer.Option(min=1, help="Seconds; more repetitions while they last.")] = None,
    data: Data = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    out: Annotated[Path, typer.Option(help="Where the run's own folder is made.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="The folder of an unfinished run to complete.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the arms and stop.")] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(min=1, help="Heats of idle copies of the baseline: how often is it wrong here?"),
    ] = None,
) -> None:
    """Measure a plan, or models under techniques, and render the report."""
    with usage_errors():
        source = (data, text_column, label_column)
        shape = (plan, model, technique, device, phase, batch, sequence, *source, repetitions, budget)
        if resume is not None and any(shape):
            raise ValueError("--resume takes its plan from the run: leave out the plan and all that shapes it")
        if calibrate is not None and (technique or resume is not None):
            raise ValueError("--calibrate races idle copies of the baseline: leave out --technique and --resume")
        compositions = tuple(parse_composition(text) for text in technique or ())
        # The nursery imports torch while this process does: both need it, and neither waits for the other.
        with _nursery(plugin, () if calibrate is None else (calibrating.RIVALS,)) as nursery:
            for names in compositions:
                compose(names)
            if resume is not None:
                chosen = _read_plan(resume)
            else:
                if plan is not None:
                    known_plan(plan)
                here = look(nursery, device)
                if device is None and here.device == "cpu" and (reason := overlooked()):
                    typer.echo(f"trainpace: this run is on the CPU: {reason}", err=True)
                chosen = customise(
                    known_plan(plan or "quick")(here),
                    here,
                    phase=phase,
                    models=tuple(model or ()),
                    compositions=compositions,
                    batch=batch,
                    sequence=sequence,
                    corpus=data,
                    text_column=text_column,
                    label_column=label_column,
                    repetitions=repetitions,
                    budget_s=budget,
                )
            if calibrate is not None:
                chosen = calibrating.rivals(chosen)
            prepared = prepare(chosen, nursery)
            if dry_run:
                typer.echo(listing.dry_run(prepared))
                return
            folder = resume or out / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{chosen.name}"
            if resume is None and folder.exists():
                raise ValueError(
                    f"run {str(folder)!r} was begun in this very second: start again, or use another --out"
                )
            if calibrate is not None:
                calibrating.calibrate(chosen, nursery, calibrate, folder)
                return
            _measure(nursery, prepared, folder)
        _conclude(folder)


@contextmanager
def _nursery(plugin: list[Path] | None, modules: Sequence[str] = ()) -> Iterator[Nursery]:
    """A nursery that knows the plugins, as this process then does too, and further modules."""
    with Nursery(modules=[*modules, *(str(file.resolve()) for file in plugin or ())]) as nursery:
        for file in plugin or ():
            plugins.load_file(file)
        yield nursery


def _read_plan(folder: Path) -> Plan:
    try:
        return Plan.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"run {str(folder)!r} has no readable plan.json: give a folder that run has made") from error


def _measure(nursery: Nursery, prepared: Prepared, folder: Path) -> None:
    """Carry out the plan into the folder, with what an earlier go has left there."""
    finished = store.read(folder) if store.has_records(folder) else []
    if finished:
        check_resumable(prepared, finished, store.read_machine(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(prepared.plan.to_json(), indent=2), encoding="utf-8")
    with Live(prepared.plan) as live:

        def keep(record: Record) -> None:
            store.write(record, folder, machine=prepared.machine, plan=prepared.plan)
            live.record(record)

        sweep = Sweep(
            prepared,
            run_id=folder.name,
            keep=keep,
            choose=lambda records: most_telling(records, prepared.machine),
            show=live.progress,
            # Whatever ends the run, Ctrl-C or worse, leaves the report of what there was.
            paused=lambda: _render(folder),
            finished=finished,
            log=folder / "arms.log",
        )
        try:
            sweep.run(nursery)
        except OSError as error:
            fail(
                f"{unwritten(error)}; finished arms are kept in {folder}: make room or a way to write there, and go on "
                f"with: trainpace run --resume {folder}",
                NOTHING_MEASURED,
            )
        except KeyboardInterrupt:
            shown = f"; their report: {_render(folder)}" if store.has_records(folder) else ""
            fail(
                f"interrupted; finished arms are kept{shown}; go on with: trainpace run --resume {folder}", INTERRUPTED
            )
    if sweep.unmeasured:
        typer.echo(listing.unmeasured(sweep.unmeasured, prepared.plan, folder))


def _render(folder: Path) -> Path:
    """Render the report of the records so far, and put it in the place of the one before."""
    records, machine = store.read(folder), store.read_machine(folder)
    page = html.render(
        compare(records, machine), records, machine, store.read_plan(folder), captions=captions(), known=_known(machine)
    )
    fresh = folder / ".report.html"
    fresh.write_text(page, encoding="utf-8")
    return fresh.replace(folder / "report.html")


def _conclude(folder: Path) -> None:
    """Print the comparison, render the report and say where both are."""
    comparisons = compare(store.read(folder), store.read_machine(folder))
    _print_table(comparisons)
    page = _render(folder)
    typer.echo(f"{sentences.answer(comparisons)}\n\nrun:    {folder}\nreport: {page}")
    if any(row.status in TRACED for row in comparisons):
        typer.echo(f"log:    {folder / 'arms.log'}, with the whole tracebacks")
    if not any(row.status is Status.OK for row in comparisons):
        fail("no arm finished: the report says why", NOTHING_MEASURED)


def _known(machine: Machine) -> ErrorRate | None:
    return error_rate(load(machine.machine_id))


def captions() -> dict[str, str]:
    """What each technique does, in a line."""
    return {name: item.caption for name, item in techniques().items()}


def _print_table(comparisons: Sequence[Comparison]) -> None:
    console = Console()
    if console.is_terminal:
        console.print(terminal.table(comparisons))
    else:
        typer.echo(terminal.plain(comparisons))


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")],
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with every fact.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
) -> None:
    """List techniques, models or plans."""
    with usage_errors():
        for file in plugin or ():
            plugins.load_file(file)
        rows = ROWS[what]()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        brief = [{name: row[name] for name in row if name not in catalogue.DETAILS} for row in rows]
        typer.echo(listing.markdown(brief) if as_markdown else listing.aligned(brief))


@app.command("compare")
def compare_(
    runs: Annotated[list[Path], typer.Argument(help="One run, or two: the second is compared with the first.")],
    output: Annotated[Format, typer.Option("--format", help="table, json, csv or markdown.")] = Format.TABLE,
    force: Annotated[bool, typer.Option("--force", help="Compare runs of different machines or data.")] = False,
) -> None:
    """Print the comparisons of a run, or of one run with another."""
    with usage_errors():
        comparisons = _compare(runs, force)
    match output:
        case Format.TABLE:
            _print_table(comparisons)
        case Format.JSON:
            typer.echo(export.to_json(comparisons))
        case Format.CSV:
            typer.echo(export.to_csv(comparisons), nl=False)
        case Format.MARKDOWN:
            typer.echo(markdown.render(comparisons))


def _compare(runs: Sequence[Path], force: bool) -> list[Comparison]:
    if len(runs) > 2:
        raise ValueError(f"compare takes one run or two, not {len(runs)}: name a base and a head")
    loaded = [store.read(folder) for folder in runs]
    differences = incomparable(loaded)
    if differences and not force:
        raise ValueError(f"{'; '.join(differences)}: use --force to compare them all the same")
    for difference in differences:
        typer.echo(f"warning: {difference}", err=True)
    machine = store.read_machine(runs[-1])
    return compare(loaded[0], machine) if len(runs) == 1 else compare_runs(loaded[0], loaded[1], machine)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; default: report.html in the first run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Put runs of different machines or data together.")] = False,
) -> None:
    """Render the HTML report of one run, or of several of one machine as if they were one."""
    with usage_errors():
        loaded = [store.read(folder) for folder in runs]
        differences = incomparable(loaded, as_one=True)
        if differences and not force:
            raise ValueError(f"{'; '.join(differences)}: use --force to put them together all the same")
        records, machine = store.join(loaded), store.read_machine(runs[0])
        page = out or runs[0] / "report.html"
        plan = store.read_plan(runs[0])
        shown = html.render(
            compare(records, machine), records, machine, plan, captions=captions(), known=_known(machine)
        )
        page.write_text(shown, encoding="utf-8")
    typer.echo(f"report: {page}")


@app.command("check-technique")
def check_technique(
    name: Annotated[str, typer.Argument(help="A technique; see `trainpace list techniques`.")],
    model: Annotated[list[str] | None, typer.Option(help="Default: gpt2/nano and bert/nano. May repeat.")] = None,
    plugin: Plugins = None,
) -> None:
    """Run the conformance tests on a technique: it applies, trains, composes and changes only what it declares."""
    with usage_errors(), _nursery(plugin) as nursery:
        findings = conformance.check(name, nursery, models=tuple(model or conformance.MODELS))
    rows = [dataclasses.asdict(finding) for finding in findings]
    typer.echo(listing.aligned(rows))
    if not all(finding.passed for finding in findings):
        fail(f"{name} does not keep its word: the reasons are above", NOTHING_MEASURED)


@app.command()
def doctor() -> None:
    """Say what this machine can and cannot measure, and why."""
    with usage_errors(), Nursery() as nursery:
        device = nursery.run("harness.machine:default_device", {}, TASK_TIMEOUT_S)
        findings = diagnose(nursery, device)
    typer.echo(listing.aligned([dataclasses.asdict(finding) for finding in findings]))


app.command()(gate)
app.command("calibration")(calibration_)
app.command()(history)
app.command()(init)


def main() -> None:
    """The entry point of the `trainpace` command."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that lacks a letter shows another one, and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
