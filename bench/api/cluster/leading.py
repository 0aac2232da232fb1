"""What the leading machine does: it hands out heats, stores their records, and reports what was lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from bench.api import cluster
from bench.api.cluster import ray, slurm
from bench.api.cluster.heats import Engine, Lost, Measured, Task, tasks_of
from bench.api.finished import Run
from bench.api.keeping import Keeping
from bench.causes import Unfinished, one_line
from bench.spec import BASELINE
from harness.heats.sweep import check_trains_alike, command, repetitions_wanted
from harness.preparation.prepared import Prepared
from harness.record import Machine, Record, Status
from results import folders, store
from results.remote import Remote


def engine(on: str, folder: Path) -> Engine:
    """The engine that carries out heats: Slurm, or Ray at an address. Raises ValueError for anything else, and if it
    cannot be reached."""
    cluster.check(on)
    return slurm.engine(folder) if on == "slurm" else ray.engine(on)


def measure(
    engine: Engine,
    prepared: Prepared,
    folder: Path,
    *,
    on: str,
    plugins: Sequence[Path] = (),
    there: Remote | None = None,
    say: Callable[[str], object] = print,
) -> Run:
    """Measure the plan's least repetitions on the engine's machines into the folder, continuing what was measured there
    before. Disturbed heats are measured once more. Then render the report. `on` is the name of the engine, for
    resuming.

    Raises ValueError if the earlier records are of another training, and Unfinished if the run is interrupted, if heats
    are lost, or if the folder cannot be written.
    """
    finished = store.read(folder) if folders.has_records(folder) else []
    if finished:
        check_trains_alike(prepared, finished)
        if differs := _other_packages(store.read_machine(folder), prepared.machine):
            raise ValueError(f"the run was started with other package versions ({differs}): start a new run")
    keeping = Keeping(folder=folder, plan=prepared.plan, machine=prepared.machine, there=there, on=on)
    keeping.begin()
    lost: list[str] = []
    handed_out: set[str] = set()

    def due() -> list[Task]:
        """The heats still to be measured. A lost heat is not tried again before somebody has looked at it."""
        every = tasks_of(prepared.plan, folder.name, plugins, most=2 * prepared.plan.repetitions)
        found = [task for task in every if task.name not in handed_out and _missing(task, prepared, finished)]
        handed_out.update(task.name for task in found)
        return found

    with keeping.unfinished():
        tasks = due()
        say(f"{len(tasks)} heats, each on an idle machine")
        while tasks:
            for index, outcome in _outcomes(engine, tasks, is_needed=len(handed_out) == len(tasks)):
                task = tasks[index]
                kept = outcome if isinstance(outcome, Lost) else _kept(outcome, task, prepared, folder, finished)
                if isinstance(kept, Lost):
                    lost.append(kept.reason)
                    say(f"{task.name} is lost: {kept.reason}")
                    continue
                finished += kept
                say(f"{task.name}: {len(kept)} arms on machine {kept[0].machine_id}")
                if there:
                    there.sync()
            tasks = due()
            if tasks:
                say(f"measuring more, because some heats were disturbed: {', '.join(task.name for task in tasks)}")
                # Whatever happens to the machines, there is a report of what was measured.
                keeping.render()
        made = keeping.end() if finished else None
    if lost:
        shown = f"; the report of the others: {folder / 'report.html'}" if made else ""
        told = f"{len(lost)} of {len(handed_out)} heats were lost, the last because {lost[-1]}{shown}; {keeping.go_on}"
        raise Unfinished(told, folder, interrupted=False)
    return made or Run(folder)


def _outcomes(engine: Engine, tasks: Sequence[Task], *, is_needed: bool) -> Iterator[tuple[int, Measured | Lost]]:
    """What the engine makes of the tasks. If it refuses tasks that are not needed, they are lost, but what was measured
    is kept."""
    left = set(range(len(tasks)))
    try:
        for index, outcome in engine(tasks):
            left.remove(index)
            yield index, outcome
    except ValueError as error:
        if is_needed:
            raise
        yield from ((index, Lost(reason=one_line(str(error)))) for index in sorted(left))


def _missing(task: Task, prepared: Prepared, finished: Sequence[Record]) -> set[str]:
    """The arms of a wanted heat that are not measured yet. What has failed once is not tried again."""
    entry = next(entry for entry in prepared.entries if entry.spec.name == task.workload)
    own = [record for record in finished if record.workload == task.workload]
    if task.repetition >= repetitions_wanted(prepared.plan, own):
        return set()
    known = {record.techniques for record in own if record.repetition == task.repetition or record.status != Status.OK}
    return {trial.label for trial in prepared.trials(entry)} - known


def _kept(
    outcome: Measured, task: Task, prepared: Prepared, folder: Path, finished: Sequence[Record]
) -> list[Record] | Lost:
    """The records of a heat, stored in one file that appears whole or not at all; or why they do not belong to this
    run."""
    try:
        heat = store.parse(outcome.content, f"the heat from {outcome.host}")
    except (ValueError, pa.ArrowException) as error:
        return Lost(reason=one_line(str(error)))
    machine = store.machines_of(heat)[0]
    if differs := _other_packages(machine, prepared.machine):
        return Lost(reason=f"{outcome.host} has other versions ({differs}): install the same ones everywhere")
    plan = prepared.plan
    earlier = [item for item in finished if (item.workload, item.repetition) == (task.workload, task.repetition)]
    # Unsupported arms are recorded once, and a run that was interrupted may have measured some arms already.
    known = {item.techniques for item in earlier if item.techniques != BASELINE}
    known |= {item.techniques for item in finished if item.status is Status.UNSUPPORTED}
    part = len({item.heat_part for item in earlier if item.techniques == BASELINE})
    records = [
        dataclasses.replace(
            record,
            repetition=0 if record.status is Status.UNSUPPORTED else task.repetition,
            heat_part=record.heat_part + part,
            command=command(plan, record.workload, record.techniques),
        )
        for record in map(store.from_row, heat.to_pylist())
        if record.techniques not in known
    ]
    try:
        check_trains_alike(prepared, records)
    except ValueError:
        return Lost(reason=f"{outcome.host} trains another model or other data: give the same --data on every machine")
    store.write_whole(records, folder, machine=machine, plan=plan)
    with open(folder / "arms.log", "a", encoding="utf-8") as log:
        log.write(f"{task.name}, on {outcome.host}\n{outcome.log}")
    return records


def _other_packages(machine: Machine, ours: Machine) -> str:
    """Packages that differ between that machine and this one, in words."""
    differing = sorted(set(machine.packages.items()) ^ set(ours.packages.items()))
    return ", ".join(f"{name} {version}" for name, version in differing)
