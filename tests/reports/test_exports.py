"""Exports for trackers contain what was measured, in files that the trackers can read."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from bench.cli.export import Tracker
from reports.exports.arms import Arm, arms
from results import store
from tests.reports import synthetic
from tests.reports.synthetic import record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.keep(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def compiled(run: Path) -> Arm:
    return next(
        arm
        for arm in arms(store.read(run), store.read_machines(run), store.read_machine(run))
        if arm.config["techniques"] == "compile"
    )


def exported(run: Path, to: Tracker, out: Path) -> Path:
    done = CliRunner().invoke(app, ["export", str(run), "--to", to.value, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_tables_have_every_arm_and_step(run: Path, compiled: Arm, tmp_path: Path) -> None:
    out = exported(run, Tracker.CSV, tmp_path / "csv")
    rows = list(csv.DictReader((out / "arms.csv").open()))
    assert len(rows) == len(synthetic.TIMES) + len(synthetic.FAILED)
    own = next(row for row in rows if row["techniques"] == "compile")
    assert float(own["speedup"]) == compiled.metrics["speedup"] and own["verdict"] == "faster"
    failed = next(row for row in rows if row["techniques"] == "ddp_2")
    assert failed["speedup"] == "" and "can't allocate" in failed["reason"]
    steps = [row for row in csv.DictReader((out / "steps.csv").open()) if row["techniques"] == "compile"]
    assert [float(row["step_time_s"]) for row in steps if row["process"] == "repetition_1"] == compiled.step_times_s[
        "repetition_1"
    ]


def test_tensorboard_reads_steps_and_figures(run: Path, compiled: Arm, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = exported(run, Tracker.TENSORBOARD, tmp_path / "events")
    found = EventAccumulator(str(out / compiled.slug))
    found.Reload()
    told = [event.value for event in found.Scalars("step_time_s/repetition_1")]
    assert told == pytest.approx(compiled.step_times_s["repetition_1"])
    assert found.Scalars("figures/speedup")[0].value == pytest.approx(compiled.metrics["speedup"])


def test_a_file_store_has_a_run_for_each_arm(run: Path, compiled: Arm, tmp_path: Path) -> None:
    out = exported(run, Tracker.MLFLOW, tmp_path / "mlruns")
    (experiment,) = out.iterdir()
    runs = {
        json.loads((item / "meta.yaml").read_text())["run_name"]: item for item in experiment.iterdir() if item.is_dir()
    }
    own = runs["gpt2/tiny compile"]
    _, value, step = (own / "metrics" / "speedup").read_text().split()
    assert (float(value), int(step)) == (compiled.metrics["speedup"], 0)
    lines = (own / "metrics" / "step_times_s" / "repetition_1").read_text().splitlines()
    assert [float(line.split()[1]) for line in lines] == compiled.step_times_s["repetition_1"]
    assert (own / "params" / "techniques").read_text() == "compile"


def test_a_summary_has_the_figures_and_the_history_the_steps(run: Path, compiled: Arm, tmp_path: Path) -> None:
    own = exported(run, Tracker.WANDB, tmp_path / "wandb") / compiled.slug
    summary = json.loads((own / "wandb-summary.json").read_text())
    assert {name: summary[name] for name in compiled.metrics} == compiled.metrics
    history = [json.loads(line) for line in (own / "wandb-history.jsonl").read_text().splitlines()]
    assert [row["step_time_s/repetition_1"] for row in history] == compiled.step_times_s["repetition_1"]
    assert json.loads((own / "config.yaml").read_text())["batch"] == {"value": 8}


def test_nothing_is_written_over(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(run), "--to", "csv", "--out", str(tmp_path)])
    assert done.exit_code == 2 and "already exists" in done.output
    done = CliRunner().invoke(app, ["export", str(run), "--to", "excel", "--out", str(tmp_path / "x")])
    assert done.exit_code == 2 and not (tmp_path / "x").exists()


def test_no_two_arms_share_a_folder_and_every_process_has_its_own_steps() -> None:
    made = [record("x", 0, workload="a/m"), record("x", 0, workload="a_m"), record("y" * 300, 0, workload="a/m")]
    made += [replace(record("fp32", 0, workload="a/m"), copy=copy) for copy in range(2)]
    found = arms(made, [synthetic.machine()], synthetic.machine())
    assert len({arm.slug for arm in found}) == len(found) and max(len(arm.slug) for arm in found) < 200
    baseline = next(arm for arm in found if arm.config["techniques"] == "fp32")
    assert list(baseline.step_times_s) == ["repetition_0", "repetition_0_copy_1"]
    assert baseline.config["device_name"] == "AMD EPYC 7B13"
