"""Heats as an array of Slurm jobs, by way of submitit. Each has a node to itself, and Slurm starts them as nodes become
idle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.api.cluster.heats import Engine, Lost, Measured, Task, measure_here
from bench.causes import one_line

MINUTES = 24 * 60
"""Minutes that a heat may take. Accounts and partitions come from the variables that sbatch reads, such as
SBATCH_PARTITION."""

JOBS = "slurm"
"""The subfolder of the run's folder in which submitit keeps what it hands over. All nodes have to see it."""


def engine(folder: Path, cluster: str = "slurm") -> Engine:
    """An engine that submits jobs to Slurm. Raises ValueError if there is no Slurm. The `cluster` "local" starts the
    same jobs on this machine, one by one."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise ValueError("--on slurm needs submitit: pip install trainpace[slurm]") from None
    try:
        executor = submitit.AutoExecutor(folder=folder / JOBS, cluster=cluster)
    except RuntimeError as error:
        raise ValueError(f"Slurm was not found here ({error}): run this where sbatch is, or on a Ray cluster") from None
    executor.update_parameters(timeout_min=MINUTES)
    if cluster == "slurm":
        executor.update_parameters(slurm_exclusive=True)
    return partial(_ended, executor, one_by_one=cluster == "local")


def _ended(executor: Any, tasks: Sequence[Task], *, one_by_one: bool) -> Iterator[tuple[int, Measured | Lost]]:
    from submitit.core.utils import FailedJobError
    from submitit.helpers import as_completed

    groups = [[index] for index in range(len(tasks))] if one_by_one else [list(range(len(tasks)))]
    for group in groups:
        try:
            jobs = executor.map_array(measure_here, [tasks[index] for index in group])
        except FailedJobError as error:
            raise ValueError(f"Slurm refused the jobs: {one_line(str(error))}") from None
        indices = {id(job): index for job, index in zip(jobs, group, strict=True)}
        try:
            for job in as_completed(jobs):
                yield indices[id(job)], _result(job)
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel(check=False)


def _result(job: Any) -> Measured | Lost:
    error = job.exception()
    if error is None:
        found: Measured = job.result()
        return found
    lines = [line for line in str(error).strip().splitlines() if line.strip("- ")]
    return Lost(reason=lines[-1] if lines else type(error).__name__)
