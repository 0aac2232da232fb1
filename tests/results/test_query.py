"""SQL sees the measurements as our own code does, and no other files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from bench.spec import Plan, WorkloadSpec
from harness.record import Record, Status
from results import store
from results.compare import compare
from results.pace import counted_steps
from results.query import query
from tests.samples import MACHINE, record

PLAN = Plan(name="p", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("adam",),))


def turns(label: str, repetition: int, step_s: float) -> Record:
    """Three turns of four steps, the first of which is not counted, and one disturbed round."""
    plain = record(label, repetition, [step_s * (1 + 0.01 * step) for step in range(12)])
    rounds = dataclasses.replace(plain.measurement, round_index=[0] * 4 + [1] * 4 + [2] * 4)
    return dataclasses.replace(plain, measurement=rounds, lead_steps=1, dropped_rounds=[1])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, adam_s in (("first", 0.02), ("second", 0.005)):
        for repetition in range(3):
            for item in (turns("fp32", repetition, 0.01), turns("adam", repetition, adam_s)):
                own = dataclasses.replace(item, run_id=name, started_at=f"2026-01-0{1 + (name == 'second')}T00:00:00")
                store.write(own, tmp_path / name, machine=MACHINE, plan=PLAN)
    failed = dataclasses.replace(record("sgd", 0, []), run_id="second", status=Status.OOM, reason="too big")
    store.write(failed, tmp_path / "second", machine=MACHINE, plan=PLAN)
    return tmp_path


def test_tables_are_what_was_measured(runs: Path) -> None:
    told = query("SELECT run_id, records, arms, failed FROM runs", [runs]).plain()
    assert told == [
        {"run_id": "first", "records": 6, "arms": 2, "failed": 0},
        {"run_id": "second", "records": 7, "arms": 3, "failed": 1},
    ]
    assert query("SELECT reason FROM arms WHERE status = 'oom'", [runs / "second"]).rows == [("too big",)]
    steps = query("SELECT run_id, techniques, repetition, step FROM steps WHERE counted ORDER BY ALL", [runs]).rows
    own = [
        (item.run_id, item.techniques, item.repetition, step)
        for item in [*store.read(runs / "first"), *store.read(runs / "second")]
        for _, entries in counted_steps(item)
        for step in entries
    ]
    assert steps == sorted(own) and len(own) == 12 * 6


def test_comparisons_are_those_of_each_run(runs: Path) -> None:
    sql = "SELECT run_id, techniques, speedup, verdict FROM comparisons WHERE techniques = 'adam' ORDER BY run_id"
    told = query(sql, [runs]).plain()
    for name, row in zip(("first", "second"), told, strict=True):
        (own,) = [item for item in compare(store.read(runs / name), MACHINE) if item.techniques == "adam"]
        assert (row["run_id"], row["speedup"], row["verdict"]) == (name, own.speedup, own.verdict)
    assert [row["verdict"] for row in told] == ["slower", "faster"]


def test_records_of_before_have_no_word_of_what_came_later(runs: Path) -> None:
    import pyarrow.parquet as pq

    (part, *_) = store.files(runs / "first")
    pq.write_table(
        pq.read_table(part).drop_columns(["predicted_peak_bytes"]), part.with_name(store.unchecked(part.name))
    )
    part.unlink()
    found = query("SELECT count(*) FROM arms WHERE predicted_peak_bytes IS NULL", [runs / "first"]).rows
    assert found == [(6,)]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT * FROM read_csv('{file}')", "file system operations are disabled"),
        ("COPY arms TO '{file}'", "file system operations are disabled"),
        ("SET enable_external_access = true", "enable_external_access"),
        ("SELECT nothing FROM arms", '"nothing" not found'),
        ("SELEC", "syntax error"),
        ("", "the SQL asks for nothing"),
    ],
)
def test_sql_that_cannot_be_answered_is_one_line(runs: Path, tmp_path: Path, sql: str, told: str) -> None:
    (tmp_path / "file.csv").write_text("a,b\n1,2\n")
    done = CliRunner().invoke(app, ["query", sql.format(file=tmp_path / "file.csv"), str(runs)])
    assert done.exit_code == 2 and done.output.count("\n") == 1
    assert told in done.output
    assert (tmp_path / "file.csv").read_text() == "a,b\n1,2\n"


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no run in"):
        query("SELECT 1", [tmp_path])


def test_it_is_told_as_a_table_as_json_and_as_csv(runs: Path) -> None:
    words = ["query", "SELECT techniques, max(sustained_s) AS s FROM arms GROUP BY ALL ORDER BY ALL", str(runs)]
    assert CliRunner().invoke(app, words).output.splitlines()[:2] == ["techniques  s", "adam        -"]
    found = json.loads(CliRunner().invoke(app, [*words, "--format", "json"]).output)
    assert found[0] == {"techniques": "adam", "s": None}
    assert CliRunner().invoke(app, [*words, "--format", "csv"]).output.startswith("techniques,s\nadam,\n")
