"""Runs: from what is asked for to what is measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import catalogue, plugins
from bench.api.cluster import leading
from bench.api.finished import Run, Where
from bench.api.keeping import Keeping, place
from bench.composition import compose
from bench.plans import customise, known_plan
from bench.spec import Overrides, Phase, Plan, parse_composition
from harness.heats.sweep import Sweep, check_resumable
from harness.hosts.leader import Leader, Listening
from harness.preparation.forecast import forecast, without_those_that_do_not_fit
from harness.preparation.narrowing import narrowed
from harness.preparation.pacing import paces_of
from harness.preparation.prepared import Prepared, look, prepare
from harness.preparation.sniffing import sniff
from harness.processes.fork_server import ForkServer
from harness.record import Record
from harness.telemetry.driver import overlooked
from reports.text import dry_run, hosts, predicted
from reports.text.live import Live
from results import folders, store
from results.compare import most_telling
from results.remote import Remote


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
    on: str | None = None,
) -> Run:
    """Measure a plan, or models under techniques, as `trainpace run` does.

    `plan` is the name of a plan. `models` and `techniques` (one, or several joined by +) replace those of the plan, and
    so do the other settings that are given: `device`, `phase`, `batch` in samples per update, `sequence` in tokens,
    `repetitions`, `budget_s` in seconds for the whole run, and the `data`. If `plan` is a Plan, it is measured as it
    is. `plugins` are Python files with techniques, models or plans.

    The run creates its folder in `out`, a folder or the URL of one. `resume` continues an unfinished run under its own
    plan. `on` is a cluster whose machines share the heats: "ray://HOST:PORT", "auto" or "slurm".

    Returns the finished run. Raises ValueError for what cannot be measured, and Unfinished if the run was interrupted
    or could not be stored.
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
        raise ValueError("resume takes its plan from the run: leave out the plan and the settings that change it")
    if not isinstance(plan, str) and (device or overrides != Overrides()):
        raise ValueError(
            f"plan {plan.name!r} is a Plan and is measured as it is: leave out the settings that change it, or change "
            "it with dataclasses.replace"
        )
    files = [Path(file) for file in plugins]
    earlier = None if resume is None else folders.here(str(resume))
    with prepared(plan, overrides, device=device, plugins=files, resume=earlier) as (fork_server, made):
        folder, there = place(out, made.plan.name, resume)
        if on is not None:
            return leading.measure(leading.engine(on, folder), made, folder, on=on, plugins=files, there=there)
        return measure(fork_server, made, folder, there=there)


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
    listening: Listening | None = None,
) -> Iterator[tuple[ForkServer, Prepared]]:
    """The fork server that arms come from, and what it will measure.

    A plan given by name is made for this machine, with what the user asked for in place of its own. A Plan, or that of
    the run to `resume`, is taken as it is. `change` is applied last. `modules` are imported by the fork server besides
    plugins. With `listening`, arms may span the hosts that join there. Raises ValueError.
    """
    if not plugins:
        # Only the registry knows what a plugin adds.
        catalogue.check(overrides.compositions, plan if isinstance(plan, str) else None)
    # The fork server imports torch at the same time as this process: both need it, and neither waits for the other.
    with fork_server(plugins, modules, listening) as server:
        chosen = plan_of(resume) if resume is not None else plan
        if isinstance(chosen, str):
            chosen = _choose(server, chosen, device, overrides)
        yield server, prepare(change(chosen), server)


@contextmanager
def fork_server(
    files: Sequence[Path] = (), modules: Sequence[str] = (), listening: Listening | None = None
) -> Iterator[ForkServer]:
    """A fork server that has loaded the plugins and `modules`; this process loads the plugins too. With `listening` it
    leads several hosts, once the others have joined."""
    known = [*modules, *(str(file.resolve()) for file in files)]
    with Leader(listening, modules=known, say=print) if listening else ForkServer(modules=known) as started:
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
    """The plan of a run that was started. Raises ValueError if there is none."""
    try:
        return Plan.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"run {str(folder)!r} has no readable plan.json ({error}): give a folder that `trainpace run` made"
        ) from error


def measure(
    fork_server: ForkServer,
    prepared: Prepared,
    folder: Path,
    run_id: str | None = None,
    *,
    there: Remote | None = None,
) -> Run:
    """Measure the plan into the folder, continuing what was measured there before, and render the report. Records have
    the `run_id`, by default the name of the folder. Everything is also copied to `there`.

    Raises Unfinished if it is interrupted, or if the folder cannot be written.
    """
    finished = store.read(folder) if folders.has_records(folder) else []
    if finished:
        check_resumable(prepared, finished, store.read_machine(folder))
    keeping = Keeping(folder=folder, plan=prepared.plan, machine=prepared.machine, there=there)
    if isinstance(fork_server, Leader):
        sniffed = sniff(fork_server, prepared.plan.device)
        print(hosts.told(sniffed))
        keeping.begin(hosts=dataclasses.asdict(sniffed))
    else:
        keeping.begin()
    forecasts = forecast(prepared, fork_server)
    print(predicted.memory(prepared, forecasts))
    prepared = without_those_that_do_not_fit(prepared, forecasts)
    if prepared.plan.narrows:
        begun = {record.workload for record in finished}
        prepared, left_out = narrowed(prepared, paces_of(prepared, fork_server, predicted.tell_timing), begun)
        print(predicted.left_out(left_out) or "every size is measured")
    with Live(prepared.plan) as live, keeping.unfinished():

        def keep(record: Record) -> None:
            keeping.keep(record)
            live.record(record)

        sweep = Sweep(
            prepared,
            run_id=run_id or folder.name,
            keep=keep,
            choose=lambda records: most_telling(records, prepared.machine),
            show=live.progress,
            paused=keeping.render,
            finished=finished,
            forecasts=forecasts,
            log=(folder / "arms.log").resolve(),
        )
        sweep.run(fork_server)
    if sweep.unmeasured:
        print(dry_run.unmeasured(sweep.unmeasured, prepared.plan, folder, sweep.put_off))
    with keeping.unfinished():
        return keeping.end()
