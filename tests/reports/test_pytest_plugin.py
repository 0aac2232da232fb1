"""The fixture in a user's tests, and its file as read by pytest-benchmark."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.timing.stopwatch import time_steps
from reports.formats import benchmark_json
from tests import ROOT

TESTS = """
import pytest, torch
from torch import nn
from bench.workload import Workload


@pytest.mark.parametrize("width", [8, 16])
def test_step(trainpace, width):
    model = nn.Linear(width, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        model(torch.ones(4, width)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    assert trainpace(step, seconds=0.05).step_times_s


class Points:
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.full((4,), float(index)), torch.ones(1)


def test_workload(trainpace):
    def loss(model, batch):
        return (model(batch[0]) - batch[1]).square().mean()

    trainpace(Workload(model=lambda: nn.Linear(4, 1), data=Points, loss=loss, batch=8), seconds=0.05)


def test_twice(trainpace):
    trainpace(lambda: None, seconds=0.01)
    with pytest.raises(ValueError, match="twice"):
        trainpace(lambda: None)
"""


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(TESTS)
    (folder / "conftest.py").write_text('pytest_plugins = ["reports.pytest_plugin"]\n')
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_mine.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_a_users_tests_write_what_pytest_benchmark_compares(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        done = pytest_in(tmp_path, f"--trainpace-json={name}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "median step" in done.stdout
    kept = json.loads((tmp_path / "a.json").read_text())
    names = [item["fullname"] for item in kept["benchmarks"]]
    assert names == [
        "test_mine.py::test_step[8]",
        "test_mine.py::test_step[16]",
        "test_mine.py::test_workload",
        "test_mine.py::test_twice",
    ]
    found = kept["benchmarks"][0]["stats"]
    assert found["rounds"] == len(found["data"]) >= 5
    assert found["median"] == pytest.approx(statistics.median(found["data"]))
    compared = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "a.json", "b.json", "--columns=median,mean,rounds"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stderr
    assert all(name.partition("::")[2] in compared.stdout for name in names)


def test_statistics_are_those_of_pytest_benchmark() -> None:
    from pytest_benchmark.stats import Stats

    theirs: Any = Stats()  # type: ignore[no-untyped-call]
    times_s = [0.011, 0.0101, 0.0103, 0.0102, 0.05, 0.0104, 0.0107]
    for time_s in times_s:
        theirs.update(time_s)
    ours = benchmark_json.stats(times_s)
    for name in ("min", "max", "mean", "stddev", "median", "q1", "q3", "iqr", "ld15iqr", "hd15iqr", "ops", "total"):
        assert ours[name] == pytest.approx(getattr(theirs, name)), name
    assert ours["outliers"] == theirs.outliers


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a function"):
        time_steps(3, device="cpu", seconds=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds 0"):
        time_steps(lambda: None, device="cpu", seconds=0.0)
