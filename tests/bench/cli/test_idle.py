"""How often `run` is wrong: what is counted in heats of idle arms, and what is stored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from results import calibration, idle
from results.compare import compare
from tests import ROOT
from tests.results.test_calibration import outcome
from tests.samples import MACHINE, record


def heat(factor: float, jitter: float) -> list[idle.IdleHeat]:
    """The result of a heat with two rivals, one of which is this much slower in each of three repetitions."""
    noise = [1 - jitter, 1.0, 1 + jitter]
    records = [record("fp32", index, [0.1] * 4) for index in range(3)]
    records += [record("idle_1", index, [0.1 * noise[index]] * 4) for index in range(3)]
    records += [record("idle_2", index, [0.1 * factor * noise[index]] * 4) for index in range(3)]
    found = idle.outcome(compare(records, MACHINE), version="0", at="now", device="cpu", step_bias=1.01, seconds=1.0)
    assert found is not None
    return [found]


def test_what_is_wrong_is_counted() -> None:
    good, bad = heat(1.0, 0.01), heat(1.5, 0.01)
    assert [(item.intervals, item.held, item.false_directions) for item in (*good, *bad)] == [(2, 2, 0), (2, 1, 1)]
    known = idle.error_rate([*good, *good, *bad])
    assert known is not None
    assert (known.held.seen, known.held.tries) == (5, 6)
    assert (known.false_heats.seen, known.false_heats.tries) == (1, 3)
    assert known.false_bound is not None and known.false_bound > 1 / 3
    assert known.step_bias == 1.01


def test_nothing_is_known_without_heats_and_a_heat_without_intervals_is_none() -> None:
    assert idle.error_rate([]) is None
    single = compare([record("fp32", 0, [0.1]), record("idle_1", 0, [0.1])], MACHINE)
    assert idle.outcome(single, version="0", at="now", device="cpu", step_bias=None, seconds=1.0) is None


def test_what_a_heat_came_to_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert idle.load("m1") == []
    (found,) = heat(1.0, 0.01)
    file = idle.append("m1", found)
    idle.append("m1", found)
    assert idle.load("m1") == [found, found] and idle.load("m2") == []
    file.write_text(file.read_text().replace('"method": 1', '"method": 0', 1))
    assert idle.load("m1") == [found]
    file.write_text("not json\n")
    with pytest.raises(ValueError, match="fix it or calibrate again"):
        idle.load("m1")


def test_calibrations_of_runs_and_of_gates_are_shown_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (found,) = heat(1.0, 0.01)
    idle.append("m1", found)
    calibration.append("m1", outcome())
    shown = CliRunner().invoke(app, ["calibration"])
    assert shown.exit_code == 0, shown.output
    assert "machine m1-run" in shown.output and "2 of 2 single intervals" in shown.output
    assert "base against itself: 1 of 1 passed" in shown.output


@pytest.mark.long
@pytest.mark.alone
def test_a_calibration_races_idle_copies_and_keeps_what_it_finds(tmp_path: Path, text_folder: Path) -> None:
    command = [sys.executable, "-m", "bench", "run", "smoke", "--calibrate", "1", "--repetitions", "2"]
    options = ["--batch", "4", "--sequence", "16", "--corpus", str(text_folder), "--out", str(tmp_path / "runs")]
    environment = {"XDG_DATA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "of idle copies of the baseline" in done.stdout
    (file,) = (tmp_path / "trainpace" / "calibration").glob("*-run.jsonl")
    (found,) = idle.read(file)
    assert (found.intervals, found.repetitions) == (16, 2)
    assert found.step_bias is not None and found.step_bias > 0
    refused = subprocess.run(
        [*command, "--technique", "compile"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert refused.returncode == 2 and "leave out --technique" in refused.stderr


def test_idle_rivals_are_not_among_the_techniques() -> None:
    listed = [sys.executable, "-c", "from bench.registry import techniques; print('idle_1' in techniques())"]
    assert subprocess.run(listed, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip() == "False"
