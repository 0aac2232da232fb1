"""Heats on a real Ray cluster of two nodes, and as submitit jobs: nothing is lost or duplicated."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.api.cluster import heats, leading, ray, slurm
from bench.api.cluster.heats import Lost, Measured, Task, tasks_of
from bench.api.finished import Run
from bench.causes import Unfinished
from bench.spec import Plan, WorkloadSpec
from harness.preparation.prepared import Prepared, prepare, template
from harness.processes.fork_server import ForkServer
from harness.record import Status
from results import folders, store
from tests.conftest import LEAST

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def prepared(fork_server: ForkServer, text_folder: Path) -> Prepared:
    workload = WorkloadSpec(model="gpt2/nano", batch=2, sequence=16, corpus=str(text_folder))
    compositions = (("adamw_fused",), ("tf32",))
    plan = Plan(name="spread", workloads=(workload,), compositions=compositions, repetitions=2, protocol=LEAST)
    return prepare(plan, fork_server)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each configured with one core."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()  # type: ignore[no-untyped-call]


def arms(run: Run) -> Counter[tuple[str, str, int]]:
    return Counter((item.workload, item.techniques, item.repetition) for item in run.records)


def every_arm(prepared: Prepared) -> set[tuple[str, str, int]]:
    """The records of an uninterrupted run; an arm that cannot run here is recorded once."""
    unable = {label for _, label in prepared.unsupported}
    return {
        (entry.spec.name, trial.label, repetition)
        for entry in prepared.entries
        for trial in prepared.plan.trials(entry.spec)
        for repetition in range(1 if trial.label in unable else prepared.plan.repetitions)
    }


def test_heats_are_spread_and_a_killed_worker_costs_its_own_alone(
    prepared: Prepared, cluster: Any, tmp_path: Path
) -> None:
    killed: list[psutil.Process] = []

    def kill_the_first() -> None:
        killed.append(wait_for_a_heat())
        os.kill(killed[0].ppid(), signal.SIGKILL)

    said: list[str] = []
    engine = ray.engine(cluster.address)
    killer = threading.Thread(target=kill_the_first)
    killer.start()
    run = leading.measure(engine, prepared, tmp_path / "run", on="auto", say=said.append)
    killer.join()
    assert not killed[0].is_running(), "what it measured in ends with it"
    assert set(arms(run)) == every_arm(prepared) and set(arms(run).values()) == {1}
    assert {item.status for item in run.records} == {Status.OK, Status.UNSUPPORTED}
    assert "--repetitions 2" in run.records[0].command
    assert len(list((run.folder / "records").glob("*.parquet"))) == 1
    assert said[0].startswith("2 heats") and {line.partition(":")[0] for line in said[1:]} == {
        "gpt2/nano, repetition 1",
        "gpt2/nano, repetition 2",
    }
    # A second call has nothing left to do.
    again = leading.measure(engine, prepared, run.folder, on="auto", say=said.append)
    assert arms(again) == arms(run) and said[-1].startswith("0 heats")


def wait_for_a_heat() -> psutil.Process:
    """Wait for a process that measures a heat, and return it."""
    while True:
        for process in psutil.process_iter(["cmdline"]):
            if heats.MODULE in (process.info["cmdline"] or []):
                return process


def test_what_is_lost_is_told_with_its_reason_and_measured_when_it_goes_on(
    prepared: Prepared, cluster: Any, tmp_path: Path
) -> None:
    def breaks_one(tasks: Sequence[Task]) -> Iterator[tuple[int, Measured | Lost]]:
        workload = tasks[0].plan["workloads"][0] | {"model": "no/model"}
        broken = dataclasses.replace(tasks[0], plan=tasks[0].plan | {"workloads": [workload]})
        return ray.engine(cluster.address)([broken, *tasks[1:]])

    once = dataclasses.replace(prepared, plan=dataclasses.replace(prepared.plan, repetitions=1))
    with pytest.raises(Unfinished, match=r"1 of 1 heats were lost, .*'no/model'.*--resume .*/run --on auto"):
        leading.measure(breaks_one, once, tmp_path / "run", on="auto", say=lambda line: None)
    # A run on this machine that ended in the middle of a heat has part of it.
    (entry,) = prepared.entries
    begun = template(prepared.plan, prepared.machine, entry, "run")
    store.write(begun, tmp_path / "run", machine=prepared.machine, plan=prepared.plan)
    whole = leading.measure(ray.engine(cluster.address), once, tmp_path / "run", on="auto", say=lambda line: None)
    found = Counter((item.workload, item.techniques, item.repetition, item.heat_part) for item in whole.records)
    assert set(arms(whole)) == every_arm(once) and set(found.values()) == {1}
    assert [item.heat_part for item in whole.records if item.techniques == "adamw_fused"] == [1]


def test_submitit_runs_the_same_tasks(prepared: Prepared, tmp_path: Path) -> None:
    (task,) = tasks_of(prepared.plan, "run", most=1)
    ((index, outcome),) = slurm.engine(tmp_path, cluster="local")([task])
    assert index == 0 and isinstance(outcome, Measured) and outcome.content[:4] == b"PAR1"


def test_what_others_have_measured_is_not_mixed_in(prepared: Prepared, tmp_path: Path) -> None:
    """If a node has another text, or a later trainpace, its heats are lost but not the run."""
    (entry,) = prepared.entries
    foreign = template(prepared.plan, prepared.machine, entry, "run")
    other = store.write_whole(
        [dataclasses.replace(foreign, corpus_sha256="0" * 64)],
        tmp_path / "other",
        machine=prepared.machine,
        plan=prepared.plan,
    )

    def foreigners(tasks: Sequence[Task]) -> Iterator[tuple[int, Measured | Lost]]:
        yield 0, Measured(host="far", content=other.read_bytes(), log="")
        yield 1, Measured(host="far", content=b"PAR1 is not all of it", log="")

    said: list[str] = []
    with pytest.raises(Unfinished, match="2 of 2 heats were lost"):
        leading.measure(foreigners, prepared, tmp_path / "run", on="auto", say=said.append)
    assert "far trains another model or other data" in said[1]
    assert not folders.has_records(tmp_path / "run")


def test_what_was_disturbed_is_measured_once_more(prepared: Prepared, tmp_path: Path) -> None:
    (first, _) = tasks_of(prepared.plan, "run", most=2)
    records = [store.from_row(row) for row in store.parse(heats.measure_here(first).content, "a heat").to_pylist()]

    def measured(*, disturbed: bool) -> Measured:
        """The heat, with the given state of disturbance, whatever really happened on this machine."""
        causes = ["other processes took 0.9 cores"] if disturbed else []
        told = [
            dataclasses.replace(item, disturbed=disturbed and item.status is Status.OK, disturbances=causes)
            for item in records
        ]
        folder = tmp_path / f"disturbed-{disturbed}"
        file = store.write_whole(told, folder, machine=prepared.machine, plan=prepared.plan)
        return Measured(host="there", content=file.read_bytes(), log="")

    heat = {disturbed: measured(disturbed=disturbed) for disturbed in (True, False)}

    def busy_at_first(tasks: Sequence[Task]) -> Iterator[tuple[int, Measured | Lost]]:
        for index, task in enumerate(tasks):
            yield index, heat[task.repetition == 0]

    said: list[str] = []
    run = leading.measure(busy_at_first, prepared, tmp_path / "run", on="auto", say=said.append)
    found = {item.repetition: item.disturbed for item in run.records if item.status is Status.OK}
    assert found == {0: True, 1: False, 2: False}
    assert [line for line in said if "measuring more" in line] == [
        "measuring more, because some heats were disturbed: gpt2/nano, repetition 3"
    ]

    def takes_no_more(tasks: Sequence[Task]) -> Iterator[tuple[int, Measured | Lost]]:
        if len(tasks) == 1:
            raise ValueError("no machine is left")
        yield from busy_at_first(tasks)

    with pytest.raises(Unfinished, match=r"1 of 3 heats were lost, the last because no machine is left; the report"):
        leading.measure(takes_no_more, prepared, tmp_path / "refused", on="auto", say=said.append)
    # Resuming finds nothing left to do.
    leading.measure(busy_at_first, prepared, run.folder, on="auto", say=said.append)
    assert said[-1].startswith("0 heats")


def test_what_is_no_cluster_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--on 'hadoop' is not a cluster: give ray://HOST:PORT, auto"):
        leading.engine("hadoop", tmp_path)


def test_without_slurm_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Slurm was not found here"):
        leading.engine("slurm", tmp_path)


def test_a_task_is_plain_data(prepared: Prepared) -> None:
    for task in tasks_of(prepared.plan, "run", most=2):
        assert json.loads(json.dumps(task.plan)) == task.plan
        made = Plan.from_json(task.plan)
        assert (len(made.workloads), made.repetitions) == (1, 1)
        assert made.seed == prepared.plan.seed + task.repetition
