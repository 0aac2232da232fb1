"""`trainpace gate` as users run it: real sides, real processes, and every kind of bad input reported in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from bench.cli.app import app
from harness.ab import comparison
from harness.telemetry import conditions
from results import calibration, store
from results import gate as gate_rules
from results.decision import Verdict
from tests import mutations
from tests.conftest import let_be
from tests.mutations import SHORT

SHAPE = ("--device", "cpu", "--batch", "4", "--sequence", "32")
NANO = ("--model", "gpt2/nano", *SHAPE)

pytestmark = pytest.mark.usefixtures("kept_fork_servers")


@pytest.fixture(autouse=True)
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Repetitions of a second, a separate calibration for these tests, and no detection of other programs."""
    monkeypatch.setattr(conditions, "FOREIGN_SHARE", 1.0)
    monkeypatch.setattr(conditions, "STEAL_SHARE", 1.0)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    with mock.patch.object(comparison, "PROTOCOL", SHORT):
        yield


def gate(*words: object) -> Result:
    return CliRunner().invoke(app, ["gate", *map(str, words)])


def kept(out: Path) -> Path:
    (folder,) = out.iterdir()
    return folder


@pytest.fixture(scope="module")
def regression(kept_fork_servers: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, str]:
    """The output, folder and summary of a gate as on GitHub's machines. The head makes four passes over a quarter of
    the batch each, which on a model this small costs far more than a tenth."""
    out = tmp_path_factory.mktemp("regression")
    with pytest.MonkeyPatch.context() as patch, mock.patch.object(comparison, "PROTOCOL", SHORT):
        let_be(patch)
        patch.setenv("XDG_DATA_HOME", str(out / "data"))
        patch.setenv("GITHUB_ACTIONS", "true")
        patch.setenv("GITHUB_STEP_SUMMARY", str(out / "summary.md"))
        done = gate(*NANO, "--head-technique", "accumulate_4", "--out", out / "runs", "--seed", 3)
    return done, kept(out / "runs"), (out / "summary.md").read_text()


@pytest.mark.long
@pytest.mark.alone
def test_a_technique_that_costs_time_is_a_regression_and_everything_is_kept(
    regression: tuple[Result, Path, str],
) -> None:
    done, folder, summary = regression
    assert done.exit_code == 1, done.output
    assert "regression: proven" in done.output and "accumulate_4" in done.output
    assert "::error title=gpt2/nano%3A regression::" in done.output
    verdict = json.loads((folder / "gate.json").read_text())
    assert verdict["verdict"] == "regression" and verdict["seed"] == 3
    assert "not calibrated" in verdict["advisory"]
    assert summary == (folder / "gate.md").read_text()
    assert ElementTree.parse(folder / "junit.xml").find(".//failure") is not None
    base, head = (pd.read_parquet(folder / side / "records") for side in ("base", "head"))
    assert len(base) == len(head) >= 8
    assert store.read_plan(folder / "base").protocol == SHORT
    assert set(base["techniques"]) == {"fp32"} and set(head["techniques"]) == {"accumulate_4"}
    # In each repetition both sides have the same data, and different data in the next.
    assert sorted(base["seed"]) == sorted(head["seed"]) and base["seed"].nunique() == len(base)
    compared = CliRunner().invoke(app, ["compare", str(folder / "base"), "--format", "json"])
    assert compared.exit_code == 0 and json.loads(compared.output)[0]["workload"] == "gpt2/nano"


@pytest.mark.long
@pytest.mark.alone
def test_a_calibration_keeps_what_it_finds_and_what_was_put_in(tmp_path: Path) -> None:
    done = gate(*NANO, "--calibrate", 1, "--slowdown", 0.8, "--out", tmp_path / "runs", "--budget", 150)
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "data" / "trainpace" / "calibration").iterdir()
    (outcome,) = calibration.read(file)
    assert outcome.verdict is Verdict.REGRESSION and outcome.slowdown == 0.8
    assert 0.8 <= outcome.held_share < 0.9
    slowed = gate(*NANO, "--base", kept(tmp_path / "runs") / "0000" / "head", "--out", tmp_path / "second")
    assert slowed.exit_code == 4 and "(plan 'gate, slowed on purpose')" in slowed.output
    assert len(outcome.log_ratios) == outcome.repetitions >= 8
    shown = CliRunner().invoke(app, ["calibration", str(file)])
    assert "slow-downs of 80% caught: 1 of 1" in shown.output
    assert CliRunner().invoke(app, ["calibration"]).output == shown.output


@pytest.mark.long
@pytest.mark.alone
def test_a_stored_run_can_be_the_base_but_only_advises(regression: tuple[Result, Path, str], tmp_path: Path) -> None:
    base = regression[1] / "base"
    asked = ("--base", base, "--head-technique", "accumulate_4", "--out", tmp_path / "second")
    done = gate(*NANO, *asked, "--budget", 80)
    # Repetitions this short may vary too much for a verdict when measured again.
    assert done.exit_code in (1, 3), done.output
    assert "the base was measured earlier" in done.output
    assert json.loads((kept(tmp_path / "second") / "gate.json").read_text())["findings"][0]["repetitions"] >= 8
    assert not (kept(tmp_path / "second") / "base").exists()
    other = gate("--model", "gpt2/nano", "--batch", 8, "--base", base, "--device", "cpu", "--out", tmp_path / "third")
    assert other.exit_code == 4, other.output
    assert "batch is 4 in base and 8 in head" in other.output
    run = CliRunner().invoke(
        app, ["run", *NANO, "--technique", "sgd_momentum", "--repetitions", "1", "--out", str(tmp_path)]
    )
    assert run.exit_code == 0, run.output
    (plain,) = tmp_path.glob("*-custom")
    unwatched = gate(*NANO, "--base", plain, "--out", tmp_path / "fourth")
    assert unwatched.exit_code == 4 and "not measured by a gate" in unwatched.output


@pytest.mark.long
def test_what_was_disturbed_is_kept_apart_and_is_no_base(tmp_path: Path) -> None:
    asleep = mutations.machine(boot_s=60.0)
    with asleep(), mock.patch.object(gate_rules, "MOST_DROPPED", 2):
        done = gate(*NANO, "--head-technique", "accumulate_4", "--out", tmp_path / "runs")
    assert done.exit_code == 4 and "slept for" in done.output
    folder = kept(tmp_path / "runs")
    assert not (folder / "base").exists() and len(store.read(folder / "disturbed" / "base")) == 3
    apart = gate(*NANO, "--base", folder / "disturbed" / "base", "--out", tmp_path / "apart")
    assert apart.exit_code == 4 and "(plan 'gate, disturbed') was not measured by a gate" in apart.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no model to measure"),
        (NANO, "base and head are the same"),
        ((*NANO, "--base", "no-such-ref"), "revision 'no-such-ref' is unknown"),
        ((*NANO, "--base-python", "/no/python"), "base python '/no/python' cannot be run"),
        ((*NANO, "--head-technique", "accumulat_4"), "did you mean accumulate_4"),
        pytest.param((*NANO, "--head-technique", "largest_batch"), "chooses its own batch", marks=pytest.mark.long),
        ((*NANO, "--head-technique", "tf32"), "head technique 'tf32' cannot run on gpt2/nano"),
        ((*NANO, "--head-technique", "fp32", "--tolerance", "0.5"), "tolerance 0.5 with harm 0.03"),
        ((*NANO, "--calibrate", "1", "--head-technique", "accumulate_4"), "leave out the options of the head"),
        (("--model", "gpt2/none", *SHAPE, "--head-technique", "accumulate_4"), "model 'gpt2/none' is unknown"),
        ((*NANO, "--slowdown", "0.1", "--head-technique", "accumulate_4"), "--slowdown only works with --calibrate"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = gate(*words, "--out", tmp_path / "runs")
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_environments_are_told_apart_by_the_packages_that_differ(tmp_path: Path) -> None:
    venv.create(tmp_path / "other")
    (packages,) = (tmp_path / "other").rglob("site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    own = packages / "torch_pruning-0.0.1.dist-info"
    own.mkdir()
    (own / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-pruning\nVersion: 0.0.1\n")
    python = tmp_path / "other" / "bin" / "python"
    done = gate(*NANO, "--head-python", python, "--budget", 1, "--out", tmp_path / "runs")
    assert done.exit_code == 3, done.output
    base, head = json.loads((kept(tmp_path / "runs") / "gate.json").read_text())["sides"].values()
    assert head.endswith(", torch-pruning 0.0.1") and "torch-pruning" in base
    assert base.rsplit(", ", 1)[0] == head.rsplit(", ", 1)[0]


def test_an_environment_without_torch_is_told_so(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    done = gate(*NANO, "--head-python", python, "--out", tmp_path / "runs")
    assert done.exit_code == 4, done.output
    assert f"head ({python})" in done.output and "No module named" in done.output
