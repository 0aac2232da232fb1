"""Runs: what is asked for to what is measured."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench import catalogue, plugins
from bench.api.finished import Run, Where
from bench.causes import Unfinished, unwritten
from bench.composition import compose
from bench.plans import customise, known_plan
from bench.spec import Overrides, Phase, Plan, parse_composition
from harness.heats.sweep import Sweep, check_resumable
from harness.preparation.forecast import forecast, without_those_that_do_not_fit
from harness.preparation.narrowing import narrowed
from harness.preparation.pacing import paces_of
from harness.preparation.prepared import Prepared, look, prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record
from harness.telemetry.driver import overlooked
from reports.text import dry_run, predicted
from reports.text.live import Live
from results import store
from results.compaction import compact
from results.compare import most_telling


def run(
    plan: str | Plan = "quick",
    *,
    models: Sequence[str] = (),
    techniques: Sequence[str] = (),
    device: str | None = None,
    phase: Phase | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    repetitions: int | None = None,
    budget_s: float | None = None,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    plugins: Sequence[Where] = (),
    out: Where = "runs",
    resume: Where | None = None,
) -> Run:
    """Measure a plan, or `models` under `techniques`, each of one or several joined by +, as `trainpace run` does.

    `out` is the folder in which the run makes its own; `resume` is that of an unfinished run, whose plan is taken.
    Raises ValueError for what cannot be measured, and Unfinished if it was interrupted or could not be kept.
    """
    overrides = Overrides(
        models=tuple(models),
        compositions=tuple(parse_composition(text) for text in techniques),
        phase=phase,
        batch=batch,
        sequence=sequence,
        corpus=data,
        text_column=text_column,
        label_column=label_column,
        repetitions=repetitions,
        budget_s=budget_s,
    )
    if resume is not None and (plan != "quick" or device or overrides != Overrides()):
        raise ValueError("resume takes its plan from the run: leave out the plan and all that shapes it")
    files = [Path(file) for file in plugins]
    earlier = None if resume is None else Path(resume)
    with prepared(plan, overrides, device=device, plugins=files, resume=earlier) as (fork_server, made):
        return measure(fork_server, made, earlier or new_folder(Path(out), made.plan.name))


@contextmanager
def prepared(
    plan: str | Plan,
    overrides: Overrides,
    *,
    device: str | None = None,
    plugins: Sequence[Path] = (),
    modules: Sequence[str] = (),
    change: Callable[[Plan], Plan] = lambda plan: plan,
    resume: Path | None = None,
) -> Iterator[tuple[ForkServer, Prepared]]:
    """What will be measured, and the fork server that its arms come from.

    A plan of that name is made for this machine, with what was asked for in place of its own, or taken from the run to
    `resume`; `change` has the last word. `modules` are what the fork server imports beside plugins. Raises ValueError.
    """
    if not plugins:
        # What a plugin adds, only the registry knows.
        catalogue.check(overrides.compositions, plan if isinstance(plan, str) else None)
    # The fork server imports torch while this process does: both need it, and neither waits for the other.
    with fork_server(plugins, modules) as server:
        chosen = plan_of(resume) if resume is not None else plan
        if isinstance(chosen, str):
            chosen = _choose(server, chosen, device, overrides)
        yield server, prepare(change(chosen), server)


@contextmanager
def fork_server(files: Sequence[Path] = (), modules: Sequence[str] = ()) -> Iterator[ForkServer]:
    """A fork server that knows the plugins, as this process then does too, and further modules."""
    with ForkServer(modules=[*modules, *(str(file.resolve()) for file in files)]) as started:
        for file in files:
            plugins.load_file(file)
        yield started


def _choose(fork_server: ForkServer, plan: str, device: str | None, overrides: Overrides) -> Plan:
    for names in overrides.compositions:
        compose(names)
    make = known_plan(plan)
    here = look(fork_server, device)
    if device is None and here.device == "cpu" and (reason := overlooked()):
        print(f"trainpace: this run is on the CPU: {reason}", file=sys.stderr)
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


def measure(fork_server: ForkServer, prepared: Prepared, folder: Path, run_id: str | None = None) -> Run:
    """Carry out the plan into the folder, with what was measured there before, and render the report. Records have the
    `run_id`, by default the name of the folder.

    Raises Unfinished if it is interrupted, or if the folder cannot be written.
    """
    finished = store.read(folder) if store.has_records(folder) else []
    if finished:
        check_resumable(prepared, finished, store.read_machine(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(prepared.plan.to_json(), indent=2), encoding="utf-8")
    forecasts = forecast(prepared, fork_server)
    print(predicted.memory(prepared, forecasts))
    prepared = without_those_that_do_not_fit(prepared, forecasts)
    if prepared.plan.narrows:
        begun = {record.workload for record in finished}
        prepared, left_out = narrowed(prepared, paces_of(prepared, fork_server, predicted.tell_timing), begun)
        print(predicted.left_out(left_out) or "every size is measured")
    with Live(prepared.plan) as live:

        def keep(record: Record) -> None:
            store.write(record, folder, machine=prepared.machine, plan=prepared.plan)
            live.record(record)

        sweep = Sweep(
            prepared,
            run_id=run_id or folder.name,
            keep=keep,
            choose=lambda records: most_telling(records, prepared.machine),
            show=live.progress,
            # Whatever ends the run, Ctrl-C or worse, leaves the report of what there was.
            paused=lambda: Run(folder).render(),
            finished=finished,
            forecasts=forecasts,
            log=(folder / "arms.log").resolve(),
        )
        try:
            sweep.run(fork_server)
        except OSError as error:
            raise Unfinished(
                f"{unwritten(error)}; finished arms are kept in {folder}: make room or a way to write there, and go on "
                f"with: trainpace run --resume {folder}",
                folder,
                interrupted=False,
            ) from error
        except KeyboardInterrupt:
            shown = f"; their report: {Run(folder).render()}" if store.has_records(folder) else ""
            raise Unfinished(
                f"interrupted; finished arms are kept{shown}; go on with: trainpace run --resume {folder}",
                folder,
                interrupted=True,
            ) from None
    if sweep.unmeasured:
        print(dry_run.unmeasured(sweep.unmeasured, prepared.plan, folder, sweep.put_off))
    made = Run(folder)
    made.render()
    # Where there is no room for it, the parts are as good.
    with contextlib.suppress(OSError):
        compact(folder)
    return made
