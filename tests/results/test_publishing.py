"""A published run has all results of the run, and does not reveal whose it is."""

from __future__ import annotations

import dataclasses
import getpass
import platform
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from bench.spec import Plan, WorkloadSpec
from harness.record import Status
from results import store
from results.compare import compare
from results.publishing import LEFT_OUT
from tests.samples import MACHINE, record

HOME, HOST = "/home/jane/secret-project", "gpu-node-7.corp.example"
MODEL = f"{HOME}/train.py:make_model"
PRIVATE = ("jane", "secret-project", "gpu-node-7", "corp.example", "10.1.2.3", "abc123commit", MACHINE.machine_id)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    machine = dataclasses.replace(
        MACHINE, git_commit="abc123commit", git_dirty=True, hosts=[HOST, "b"], unknown={"gpu": f"no {HOME}/driver.so"}
    )
    plan = Plan(
        name="p",
        workloads=(WorkloadSpec(model=MODEL, corpus=f"{HOME}/text.jsonl"),),
        compositions=(("adam",), ("sgd",)),
    )
    for repetition in range(3):
        for label, times_s in (("fp32", [0.2, 0.21]), ("adam", [0.1, 0.11])):
            item = record(label, repetition, times_s)
            item.measurement.rank_hosts = [HOST, "b"]
            item.measurement.unknown = [f"sample_gpu_util_pct is unknown: {HOME}/libnvidia-ml.so is not there"]
            store.write(
                dataclasses.replace(
                    item,
                    workload=MODEL,
                    command=f"trainpace run --model {MODEL} --data {HOME}/text.jsonl",
                    disturbances=[f"{HOME}/bin/other took 50 % of a core"],
                ),
                folder,
                machine=machine,
                plan=plan,
            )
    reason = f"RuntimeError: host {HOST} (10.1.2.3) answers no more, see {HOME}/logs/arms.log"
    failed = dataclasses.replace(record("sgd", 0, []), workload=MODEL, status=Status.CRASHED, reason=reason)
    store.write(failed, folder, machine=machine, plan=plan)
    return folder


def test_nothing_private_is_in_any_file_and_the_comparison_is_the_same(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "published"
    done = CliRunner().invoke(app, ["publish", str(run), "--out", str(out)])
    assert done.exit_code == 0, done.output
    files = [file for file in out.rglob("*") if file.is_file()]
    assert {file.name.partition("-")[0] for file in files} >= {
        "plan.json",
        "machine.json",
        "report.html",
        "run",
        "left",
    }
    kept = store.read(out)
    told = "\n".join(file.read_text(errors="replace") for file in files if file.suffix != ".parquet")
    told += "\n".join(repr(item) for item in kept) + repr(store.read_machine(out)) + repr(store.read_plan(out))
    for word in (*PRIVATE, *(name for name in (platform.node(), str(tmp_path)) if len(name) > 3)):
        assert word not in told, word
    assert {item.workload for item in kept} == {"train.py:make_model"}
    assert kept[0].command == "trainpace run --model train.py:make_model --data text.jsonl"
    failed = next(item for item in kept if item.techniques == "sgd")
    assert failed.reason == "RuntimeError: host host 1 (0.0.0.0) answers no more, see arms.log"
    assert next(item for item in kept if item.techniques == "adam").measurement.rank_hosts == ["host 1", "host 2"]
    before = {row.techniques: row for row in compare(store.read(run), store.read_machine(run))}
    for row in compare(kept, store.read_machine(out)):
        assert (row.speedup, row.verdict, row.status) == (
            before[row.techniques].speedup,
            before[row.techniques].verdict,
            before[row.techniques].status,
        )
    assert (out / "left-out.txt").read_text().splitlines() == list(LEFT_OUT)


def test_runs_of_one_machine_can_be_compared_once_published(run: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        assert CliRunner().invoke(app, ["publish", str(run), "--out", str(tmp_path / name)]).exit_code == 0
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "one"), str(tmp_path / "other"), "--format", "json"])
    assert shown.exit_code == 0, shown.output
    again = CliRunner().invoke(app, ["publish", str(run), "--out", str(tmp_path / "one")])
    assert again.exit_code == 2 and "already exists" in again.output


def test_the_users_own_name_goes_too(run: Path) -> None:
    from results.publishing import _cleaner

    clean = _cleaner({})
    assert clean(f"as {getpass.getuser()} on {platform.node()}: no /etc/x and ~/y/z, 1/2 and a/b stay") == (
        "as user on host: no x and z, 1/2 and a/b stay"
    )
