"""The command line as users run it: whole processes, from the plan to the report."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import psutil
import pytest
from typer.testing import CliRunner, Result

from bench.cli.app import app, main
from bench.corpus import cache_folder
from harness.processes.fork_server import ForkServer
from results import store
from tests import ROOT
from tests.conftest import lend, let_be

SMALL = ("--model", "gpt2/nano", "--batch", "8", "--sequence", "32", "--device", "cpu")


def test_an_interruption_before_the_command_has_begun_ends_like_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


def inside(*arguments: object) -> Result:
    """Run the command line in this process, for tests that need no separate one."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def trainpace(
    *arguments: object, cwd: Path = ROOT, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | dict(variables)
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, check=False
    )


@pytest.fixture(scope="module")
def smoke(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished smoke run."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        lend(fork_server, patch)
        let_be(patch)
        done = inside("run", "smoke", "--device", "cpu", "--repetitions", 2, "--out", out)
    assert done.exit_code == 0, done.stderr
    (folder,) = out.iterdir()
    assert f"run:    {folder}" in done.stdout
    assert f"report: {folder / 'report.html'}" in done.stdout
    return folder


def test_smoke_leaves_records_plan_and_report(smoke: Path) -> None:
    frame = pd.read_parquet(smoke / "records")
    assert set(frame["techniques"]) == {"fp32", "accumulate_4", "adamw_fused", "sgd_momentum"}
    assert set(frame["status"]) == {"ok"}
    assert frame[frame["copy"] == 0].groupby("techniques").size().eq(2).all()
    assert json.loads((smoke / "plan.json").read_text())["name"] == "smoke"
    page = (smoke / "report.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert all(name in page for name in frame["techniques"])


def test_compare_in_every_format(smoke: Path) -> None:
    rows = json.loads(inside("compare", smoke, "--format", "json").stdout)
    assert rows[0]["techniques"] == "fp32"
    assert {"workload", "status", "speedup", "speedup_low", "verdict", "energy_j_per_token", "reason"} <= rows[0].keys()
    assert all(row["energy_j_per_token"] is None for row in rows)
    table = list(csv.DictReader(io.StringIO(inside("compare", smoke, "--format", "csv").stdout)))
    assert [float(row["step_time_s"]) for row in table] == [row["step_time_s"] for row in rows]
    assert "| " in inside("compare", smoke, "--format", "markdown").stdout
    assert "accumulate_4" in inside("compare", smoke).stdout
    both = json.loads(inside("compare", smoke, smoke, "--format", "json").stdout)
    assert [row["speedup"] for row in both] == pytest.approx([1.0] * len(both))


def test_report_is_rendered_where_asked(smoke: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert inside("report", smoke, "--out", page).exit_code == 0
    assert "gpt2/nano" in page.read_text()


def test_a_locale_of_few_letters_loses_nothing(smoke: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = trainpace("report", smoke, "--out", page, variables=locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\N{HORIZONTAL ELLIPSIS}" in page.read_text(encoding="utf-8")
    assert trainpace("compare", smoke, variables=locale).returncode == 0


def test_what_cannot_be_written_is_one_line(smoke: Path) -> None:
    done = trainpace("report", smoke, "--out", "/proc/nothing/page.html")
    assert done.returncode != 0
    assert (
        done.stderr == "trainpace: '/proc/nothing/page.html' could not be read or written: No such file or directory\n"
    )


def test_a_home_that_cannot_be_written_costs_only_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/proc")
    assert os.access(cache_folder().parent, os.W_OK)


def test_runs_of_two_models_of_one_name_are_not_put_together(smoke: Path, tmp_path: Path) -> None:
    records = [dataclasses.replace(record, workload_sha256="another") for record in store.read(smoke)]
    for record in records:
        store.write(record, tmp_path / "other", machine=store.read_machine(smoke), plan=store.read_plan(smoke))
    done = inside("report", smoke, tmp_path / "other", "--out", tmp_path / "page.html")
    assert done.exit_code == 2 and "differ in the workload_sha256 of gpt2/nano" in done.stderr
    assert inside("compare", smoke, tmp_path / "other").exit_code == 0


def test_a_finished_run_resumes_to_itself(smoke: Path, lent: None) -> None:
    before = {part: part.stat().st_mtime_ns for part in (smoke / "records").iterdir()}
    assert inside("run", "--resume", smoke).exit_code == 0
    assert {part: part.stat().st_mtime_ns for part in (smoke / "records").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "qick"], "plan 'qick' is unknown: give one of smoke, quick, full"),
        (["run", *SMALL, "--technique", "amp_bf15"], "technique 'amp_bf15' is unknown: did you mean amp_bf16"),
        (["run", *SMALL, "--technique", "adam+adamax"], "'adam' and 'adamax' exclude each other"),
        (["run", "--model", "gpt2/tinny", "--device", "cpu"], "model 'gpt2/tinny' is unknown"),
        (["run", "--model", "none.py:f", "--device", "cpu"], "model file 'none.py' does not exist"),
        (["run", *SMALL, "--data", "/nowhere"], "data '/nowhere' does not exist"),
        (["run", "--model", "gpt2/nano", "--sequence", "4096", "--device", "cpu"], "longer than the 1024 positions"),
        (["run", "--resume", "/nowhere"], "no readable plan.json"),
        (["run", "quick", "--resume", "/nowhere"], "leave out the plan"),
        (["run", *SMALL, "--json"], "--json only works with --dry-run: give both"),
        (["compare", "/nowhere"], "holds no records"),
        (["report", "/nowhere"], "holds no records"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], message: str, lent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = inside(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("trainpace: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_input_ends_the_process_with_2(tmp_path: Path) -> None:
    done = trainpace("run", "--technique", "amp_bf15", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "did you mean amp_bf16" in done.stderr


def test_dry_run_prints_the_arms_and_leaves_nothing(
    lent: None, undisturbed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = inside("run", *SMALL, "--technique", "tf32", "--technique", "adam", "--dry-run")
    assert done.exit_code == 0
    assert "tf32 needs an Ampere or newer GPU; this run is on cpu" in done.stdout
    assert "estimated time" in done.stdout
    as_data = inside("run", *SMALL, "--technique", "tf32", "--technique", "adam", "--dry-run", "--json")
    baseline, tf32, adam = json.loads(as_data.stdout)
    assert (baseline["techniques"], tf32["techniques"], adam["techniques"]) == ("fp32", "tf32", "adam")
    assert baseline["workload"].startswith("gpt2/nano") and baseline["fits"] is True and baseline["reason"] is None
    assert baseline["predicted_peak_bytes"] == adam["predicted_peak_bytes"] > 1_000_000
    assert 0 < adam["predicted_step_time_low_s"] < adam["predicted_step_time_s"] < adam["predicted_step_time_high_s"]
    assert tf32["reason"] == "tf32 needs an Ampere or newer GPU; this run is on cpu"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["techniques", "models", "plans"])
def test_listings(what: str) -> None:
    rows = json.loads(inside("list", what, "--json").stdout)
    plain = inside("list", what).stdout
    assert rows
    assert all(row["name"] in plain and row["caption"] in plain for row in rows)


def test_listed_parameters_are_the_published_ones() -> None:
    counts = {row["name"]: row["parameters"] for row in json.loads(inside("list", "models", "--json").stdout)}
    assert (counts["gpt2/small"], counts["gpt2/xl"]) == (124_439_808, 1_557_611_200)


def test_doctor_says_what_is_missing() -> None:
    shown = inside("doctor").stdout
    assert "matmul peak" in shown
    assert "technique tf32" in shown


@contextlib.contextmanager
def started(*arguments: object, until: str) -> Iterator[subprocess.Popen[str]]:
    """A running process that has just printed a line with these words."""
    command = [sys.executable, "-m", "bench", "run", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        try:
            assert any(until in line for line in iter(run.stdout.readline, ""))
            yield run
        finally:
            run.kill()


@pytest.mark.long
def test_a_run_that_is_killed_and_interrupted_loses_nothing_and_is_resumed(lent: None, tmp_path: Path) -> None:
    small = (*SMALL, "--technique", "adamw_fused", "--repetitions", "3", "--out", tmp_path)
    with started(*small, until="repetition 2") as run:
        (folder,) = tmp_path.iterdir()
        page = folder / "report.html"
        assert "adamw_fused" in page.read_text()
        family = psutil.Process(run.pid).children(recursive=True)
        assert family
        run.kill()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    # An interrupted render would have left a temporary file, not a truncated page.
    assert page.read_text().rstrip().endswith("</html>")
    before = len(store.read(folder))
    page.unlink()
    with started("--resume", folder, until="gpt2/nano fp32:") as run:
        run.send_signal(signal.SIGINT)
        assert run.wait() == 130
    assert len(store.read(folder)) > before > 0
    assert '<th scope="row" data-key="techniques">fp32</th>' in page.read_text()
    assert inside("run", "--resume", folder).exit_code == 0
    frame = pd.read_parquet(folder / "records")
    for label in ("fp32", "adamw_fused"):
        # Disturbed repetitions are replaced.
        assert set(frame[frame["techniques"] == label]["repetition"]) >= {0, 1, 2}
