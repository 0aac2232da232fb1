"""Runs: what is asked for to what is measured."""

from __future__ import annotations

import contextlib
import dataclasses
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
from results import store
from results.compaction import compact
from results.compare import most_telling
from results.remote import Remote, here, is_url


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

    `out` is the folder in which the run makes its own, or a URL of one; `resume` is that of an unfinished run, whose
    plan is taken.
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
    earlier = None if resume is None else here(str(resume))
    with prepared(plan, overrides, device=device, plugins=files, resume=earlier) as (fork_server, made):
        folder, there = place(out, made.plan.name, resume)
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
    """What will be measured, and the fork server that its arms come from.

    A plan of that name is made for this machine, with what was asked for in place of its own, or taken from the run to
    `resume`; `change` has the last word. `modules` are what the fork server imports beside plugins. With `listening`
    arms may span the hosts that join there. Raises ValueError.
    """
    if not plugins:
        # What a plugin adds, only the registry knows.
        catalogue.check(overrides.compositions, plan if isinstance(plan, str) else None)
    # The fork server imports torch while this process does: both need it, and neither waits for the other.
    with fork_server(plugins, modules, listening) as server:
        chosen = plan_of(resume) if resume is not None else plan
        if isinstance(chosen, str):
            chosen = _choose(server, chosen, device, overrides)
        yield server, prepare(change(chosen), server)


@contextmanager
def fork_server(
    files: Sequence[Path] = (), modules: Sequence[str] = (), listening: Listening | None = None
) -> Iterator[ForkServer]:
    """A fork server that knows the plugins, as this process then does too, and further modules. With `listening` it is
    one of several hosts, once the others have joined."""
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
    """The plan of a run that was begun. Raises ValueError if there is none."""
    try:
        return Plan.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"run {str(folder)!r} has no readable plan.json: give a folder that run has made") from error


def place(out: Where, name: str, resume: Where | None = None) -> tuple[Path, Remote | None]:
    """The folder of a run that begins now, or goes on, and where it is kept besides, if that is said by a URL. Raises
    ValueError if another has begun there in this second."""
    if resume is not None:
        return (there.folder, there) if (there := _remote(str(resume))) else (Path(resume), None)
    if not is_url(str(out)):
        return new_folder(Path(out), name), None
    there = Remote(f"{str(out).rstrip('/')}/{_stamped(name)}")
    return _fresh(there.folder), there


def _remote(text: str) -> Remote | None:
    return Remote(text) if is_url(text) else None


def new_folder(out: Path, name: str) -> Path:
    """Where a run that begins now is kept. Raises ValueError if another has begun there in this second."""
    return _fresh(out / _stamped(name))


def _stamped(name: str) -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"


def _fresh(folder: Path) -> Path:
    if folder.exists():
        raise ValueError(f"run {str(folder)!r} was begun in this very second: start again, or use another --out")
    return folder


def measure(
    fork_server: ForkServer,
    prepared: Prepared,
    folder: Path,
    run_id: str | None = None,
    *,
    there: Remote | None = None,
) -> Run:
    """Carry out the plan into the folder, with what was measured there before, and render the report. Records have the
    `run_id`, by default the name of the folder. All of it is put `there` too.

    Raises Unfinished if it is interrupted, or if the folder cannot be written.
    """
    finished = store.read(folder) if store.has_records(folder) else []
    if finished:
        check_resumable(prepared, finished, store.read_machine(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(prepared.plan.to_json(), indent=2), encoding="utf-8")
    if there:
        # Whoever goes on elsewhere needs it.
        there.push(folder / "plan.json")
    if isinstance(fork_server, Leader):
        sniffed = sniff(fork_server, prepared.plan.device)
        (folder / "hosts.json").write_text(json.dumps(dataclasses.asdict(sniffed), indent=2), encoding="utf-8")
        print(hosts.told(sniffed))
    forecasts = forecast(prepared, fork_server)
    print(predicted.memory(prepared, forecasts))
    prepared = without_those_that_do_not_fit(prepared, forecasts)
    if prepared.plan.narrows:
        begun = {record.workload for record in finished}
        prepared, left_out = narrowed(prepared, paces_of(prepared, fork_server, predicted.tell_timing), begun)
        print(predicted.left_out(left_out) or "every size is measured")
    with Live(prepared.plan) as live:

        def keep(record: Record) -> None:
            part = store.write(record, folder, machine=prepared.machine, plan=prepared.plan)
            if there:
                there.push(part)
            live.record(record)

        def rendered() -> Path:
            page = Run(folder).render()
            if there:
                there.sync()
            return page

        sweep = Sweep(
            prepared,
            run_id=run_id or folder.name,
            keep=keep,
            choose=lambda records: most_telling(records, prepared.machine),
            show=live.progress,
            # Whatever ends the run, Ctrl-C or worse, leaves the report of what there was.
            paused=rendered,
            finished=finished,
            forecasts=forecasts,
            log=(folder / "arms.log").resolve(),
        )
        try:
            sweep.run(fork_server)
        except OSError as error:
            raise Unfinished(
                f"{unwritten(error)}; finished arms are kept in {folder}: make room or a way to write there, and go on "
                f"with: trainpace run --resume {there.url if there else folder}",
                folder,
                interrupted=False,
            ) from error
        except KeyboardInterrupt:
            shown = f"; their report: {Run(folder).render()}" if store.has_records(folder) else ""
            with contextlib.suppress(OSError):
                if there:
                    there.sync()
            raise Unfinished(
                f"interrupted; finished arms are kept{shown}; go on with: trainpace run --resume "
                f"{there.url if there else folder}",
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
    if there:
        there.sync()
    return made
