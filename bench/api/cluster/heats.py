"""A heat as a task: one workload in one repetition, measured on one machine, which returns its records."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import temporary
from bench.spec import Plan
from harness.processes.worker import die_with_parent

TASK, LOG, ARMS = "task.json", "log", "arms.log"
MODULE = "bench.api.cluster.heats"

THREADS = "OMP_NUM_THREADS"
"""Engines set it for the processes that they start; a user would not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A heat to measure, all plain data. `plan` has only this workload and one repetition. It is measured in `folder`,
    so that models and data may be named relative to it."""

    plan: dict[str, Any]
    workload: str
    repetition: int
    run_id: str
    folder: str
    plugins: tuple[str, ...] = ()
    threads: str | None = None

    @property
    def name(self) -> str:
        return f"{self.workload}, repetition {self.repetition + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measured heat: the content of its file of records, the host that measured it, and what the arms printed."""

    host: str
    content: bytes
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A heat that was not measured, and why."""

    reason: str


Engine = Callable[[Sequence[Task]], Iterator[tuple[int, Measured | Lost]]]
"""Carries out tasks, one at a time on each machine. Yields the index and the outcome of each, in the order in which
they end."""


def tasks_of(plan: Plan, run_id: str, plugins: Sequence[Path] = (), *, most: int) -> list[Task]:
    """All heats of `most` repetitions. The first repetition of every workload comes first."""
    return [
        Task(
            plan=_plain(
                dataclasses.replace(plan, workloads=(spec,), repetitions=1, budget_s=None, seed=plan.seed + repetition)
            ),
            workload=spec.name,
            repetition=repetition,
            run_id=run_id,
            folder=str(Path.cwd()),
            plugins=tuple(str(file.resolve()) for file in plugins),
            threads=os.environ.get(THREADS),
        )
        for repetition in range(most)
        for spec in plan.workloads
    ]


def _plain(plan: Plan) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    return made


def measure_here(task: Task) -> Measured:
    """Measure a heat on this machine, in a process of its own that ends with this one. If it fails, raises RuntimeError
    with the last line that it printed."""
    with temporary.folder("heat") as folder:
        (folder / TASK).write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
        surroundings = {key: value for key, value in os.environ.items() if key != THREADS}
        if task.threads is not None:
            surroundings[THREADS] = task.threads
        with open(folder / LOG, "wb") as log:
            done = subprocess.run(
                [sys.executable, "-m", MODULE, str(folder)],
                cwd=task.folder if Path(task.folder).is_dir() else None,
                env=surroundings,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
                check=False,
            )
        said = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        found = list((folder / "records").glob("run-*.parquet"))
        if done.returncode or not found:
            raise RuntimeError(said.strip().splitlines()[-1] if said.strip() else f"exit code {done.returncode}")
        arms = folder / ARMS
        log_text = arms.read_text(encoding="utf-8", errors="replace") if arms.exists() else ""
        return Measured(host=socket.gethostname(), content=found[0].read_bytes(), log=log_text)


def _main(folder: Path) -> None:
    from bench.api import runs
    from bench.spec import Overrides
    from harness.heats.sweep import Sweep
    from harness.preparation.forecast import forecast, without_those_that_do_not_fit
    from harness.record import Record
    from results import store

    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    plugins = [Path(file) for file in task["plugins"]]
    records: list[Record] = []
    with runs.prepared(Plan.from_json(task["plan"]), Overrides(), plugins=plugins) as (fork_server, prepared):
        forecasts = forecast(prepared, fork_server)
        Sweep(
            without_those_that_do_not_fit(prepared, forecasts),
            run_id=task["run_id"],
            keep=records.append,
            choose=lambda _: [],
            forecasts=forecasts,
            log=folder / ARMS,
        ).run(fork_server)
        store.write_whole(records, folder, machine=prepared.machine, plan=prepared.plan)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
