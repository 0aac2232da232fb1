"""Carries out a run: from a plan to records and a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import typer

from bench import plugins
from bench.cli import comparing
from bench.cli.console import INTERRUPTED, NOTHING_MEASURED, fail, unwritten
from bench.composition import compose
from bench.plans import customise, known_plan
from bench.spec import Overrides, Plan
from harness.driver import overlooked
from harness.nursery import Nursery
from harness.prepare import Prepared, look
from harness.record import Record, Status
from harness.sweep import Sweep, check_resumable
from reports import dry_run, sentences
from reports.live import Live
from results import store
from results.compare import compare, most_telling

TRACED = (Status.CRASHED, Status.OOM, Status.DIVERGED, Status.TIMEOUT)
"""Arms that ended so may have left a traceback in the run's log."""


@contextmanager
def nursery(plugin: Sequence[Path] | None, modules: Sequence[str] = ()) -> Iterator[Nursery]:
    """A nursery that knows the plugins, as this process then does too, and further modules."""
    with Nursery(modules=[*modules, *(str(file.resolve()) for file in plugin or ())]) as started:
        for file in plugin or ():
            plugins.load_file(file)
        yield started


def choose(nursery: Nursery, plan: str, device: str | None, overrides: Overrides) -> Plan:
    """The named plan for this machine, with what was asked for in place of its own."""
    for names in overrides.compositions:
        compose(names)
    make = known_plan(plan)
    here = look(nursery, device)
    if device is None and here.device == "cpu" and (reason := overlooked()):
        typer.echo(f"trainpace: this run is on the CPU: {reason}", err=True)
    return customise(make(here), here, overrides)


def plan_of(folder: Path) -> Plan:
    """The plan of a run that was begun. Raises ValueError if there is none."""
    try:
        return Plan.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"run {str(folder)!r} has no readable plan.json: give a folder that run has made") from error


def new_folder(out: Path, name: str) -> Path:
    """Where a run that begins now is kept. Raises ValueError if another has begun there in this second."""
    folder = out / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"
    if folder.exists():
        raise ValueError(f"run {str(folder)!r} was begun in this very second: start again, or use another --out")
    return folder


def measure(nursery: Nursery, prepared: Prepared, folder: Path) -> None:
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
        typer.echo(dry_run.unmeasured(sweep.unmeasured, prepared.plan, folder))


def _render(folder: Path) -> Path:
    """Render the report of the records so far, and put it in the place of the one before."""
    records, machine = store.read(folder), store.read_machine(folder)
    page = comparing.page(records, machine, store.read_plan(folder))
    fresh = folder / ".report.html"
    fresh.write_text(page, encoding="utf-8")
    return fresh.replace(folder / "report.html")


def conclude(folder: Path) -> None:
    """Print the comparison, render the report and say where both are."""
    comparisons = compare(store.read(folder), store.read_machine(folder))
    comparing.print_table(comparisons)
    page = _render(folder)
    typer.echo(f"{sentences.answer(comparisons)}\n\nrun:    {folder}\nreport: {page}")
    if any(row.status in TRACED for row in comparisons):
        typer.echo(f"log:    {folder / 'arms.log'}, with the whole tracebacks")
    if not any(row.status is Status.OK for row in comparisons):
        fail("no arm finished: the report says why", NOTHING_MEASURED)
