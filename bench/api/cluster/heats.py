"""A heat as a task: one workload in one repetition, measured on one machine, from which its records come back."""

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
"""Engines set it for what they start; a user would not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`plan` has the one workload and one repetition, and is plain data, as all of it is. It is measured in the
    `folder`, from which models and data of one's own may be named."""

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
    """The file of a heat's records, where they were measured, and what the arms printed."""

    host: str
    content: bytes
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A heat that was not measured, and why."""

    reason: str


Engine = Callable[[Sequence[Task]], Iterator[tuple[int, Measured | Lost]]]
"""Carries out tasks, one at a time on each machine, and gives back each by its index, in whatever order they end."""


def tasks_of(plan: Plan, run_id: str, plugins: Sequence[Path] = (), *, most: int) -> list[Task]:
    """All heats of so many repetitions: the first of every workload comes first."""
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
    """Measure a heat on this machine, in a process of its own, which ends with this one. Raises RuntimeError with its
    last words where it fails."""
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
