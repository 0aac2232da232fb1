"""What the leading machine does: it hands out heats, keeps their records, and says what was lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.api.cluster import ray, slurm
from bench.api.cluster.heats import Engine, Lost, Measured, Task, tasks_of
from bench.api.finished import Run
from bench.api.keeping import Keeping
from bench.spec import BASELINE, Plan
from harness.heats.sweep import command
from harness.preparation.prepared import Prepared
from harness.record import Machine, Record, Status
from results import store
from results.remote import Remote


def engine(on: str, folder: Path) -> Engine:
    """What carries out heats: Slurm, or Ray at an address. Raises ValueError for what is neither."""
    if on == "slurm":
        return partial(slurm.over, folder)
    if on == "auto" or on.startswith("ray://"):
        return partial(ray.over, on)
    raise ValueError(
        f"--on {on!r} is no cluster: give ray://HOST:PORT, auto (the Ray cluster of this machine) or slurm"
    )


def measure(
    engine: Engine,
    prepared: Prepared,
    folder: Path,
    *,
    plugins: Sequence[Path] = (),
    there: Remote | None = None,
    say: Callable[[str], object] = print,
) -> Run:
    """Carry out the plan's least repetitions on the engine's machines into the folder, with what was measured there
    before, and render the report. Raises Unfinished if it is interrupted, or if the folder cannot be written.
    """
    finished = store.read(folder) if store.has_records(folder) else []
    keeping = Keeping(folder=folder, plan=prepared.plan, machine=prepared.machine, there=there)
    keeping.begin()
    done = {(record.workload, record.repetition) for record in finished if record.techniques == BASELINE}
    tasks = [
        task
        for task in tasks_of(prepared.plan, folder.name, plugins)
        if (Plan.from_json(task.plan).workloads[0].name, task.repetition) not in done
    ]
    say(f"{len(tasks)} heats, each on a machine that is idle")
    lost = 0
    with keeping.unfinished():
        for index, outcome in engine(tasks):
            task = tasks[index]
            kept = outcome if isinstance(outcome, Lost) else _kept(outcome, task, prepared, folder, finished)
            if isinstance(kept, Lost):
                lost += 1
                say(f"{task.name} is lost: {kept.reason}")
                continue
            finished += kept
            say(f"{task.name}: {len(kept)} arms on machine {kept[0].machine_id}")
            if there:
                there.sync()
        if lost:
            say(f"{lost} of {len(tasks)} heats are lost; again with: trainpace run --resume {folder} and --on")
        return keeping.end()


def _kept(
    outcome: Measured, task: Task, prepared: Prepared, folder: Path, finished: Sequence[Record]
) -> list[Record] | Lost:
    """The records of a heat, in one file that appears whole or not at all; or why they are none of this run."""
    heat = store.parse(outcome.content, f"the records of {task.name}")
    machine = store.machines_of(heat)[0]
    if differs := _other_packages(machine, prepared.machine):
        return Lost(reason=f"{outcome.host} has other versions ({differs}): install the same everywhere")
    known = {(record.workload, record.techniques) for record in finished if record.status is Status.UNSUPPORTED}
    plan = prepared.plan
    records = [
        dataclasses.replace(
            record,
            # What cannot run is told once.
            repetition=0 if record.status is Status.UNSUPPORTED else task.repetition,
            command=command(plan, record.workload, record.techniques),
        )
        for record in map(store.from_row, heat.to_pylist())
        if (record.workload, record.techniques) not in known
    ]
    corpora = {entry.spec.name: (entry.corpus.sha256, entry.sha256) for entry in prepared.entries}
    if any((record.corpus_sha256, record.workload_sha256) != corpora[record.workload] for record in records):
        return Lost(reason=f"{outcome.host} trains another model, or on other data: give --data that is the same there")
    store.write_whole(records, folder, machine=machine, plan=plan)
    with open(folder / "arms.log", "a", encoding="utf-8") as log:
        log.write(f"{task.name}, on {outcome.host}\n{outcome.log}")
    return records


def _other_packages(machine: Machine, ours: Machine) -> str:
    """What is installed there or here alone, in words."""
    differing = sorted(set(machine.packages.items()) ^ set(ours.packages.items()))
    return ", ".join(f"{name} {version}" for name, version in differing)
