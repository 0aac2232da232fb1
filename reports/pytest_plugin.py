"""A pytest fixture that times a training step like trainpace, and writes files for pytest-benchmark's tools.

    def test_step(trainpace):
        trainpace(step)        # a function that takes one training step
        trainpace(workload())  # or a bench.workload.Workload, trained as the baseline trains it

Enable it in conftest.py with `pytest_plugins = ["reports.pytest_plugin"]`. It is not loaded automatically, because a
repository may have a `reports` package of its own. `pytest --trainpace-json=FILE` writes the times of all such tests in
pytest-benchmark's JSON, for `pytest-benchmark compare FILE...` and other tools that read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.workload import Workload
    from harness.timing.stopwatch import Timing

RESULTS = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trainpace")
    group.addoption(
        "--trainpace-json", metavar="FILE", type=Path, help="Write the times in the format of pytest-benchmark."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []
    if config.getoption("--trainpace-json") and config.getoption("numprocesses", None):
        raise pytest.UsageError(
            "--trainpace-json needs the tests in one process: leave out -n, which times them together"
        )


@pytest.fixture
def trainpace(request: pytest.FixtureRequest) -> Callable[..., Timing]:
    """`trainpace(step_or_workload, device="cpu", seconds=2.0)` warms up until steady, then times steps and returns
    their times. It may be called once per test."""
    calls: list[Timing] = []

    def measure(what: Callable[[], object] | Workload, *, device: str = "cpu", seconds: float = 2.0) -> Timing:
        from harness.timing.stopwatch import time_steps
        from reports.formats import benchmark_json

        if calls:
            raise ValueError(f"{request.node.nodeid} calls trainpace twice: a test is one benchmark, so split it")
        calls.append(time_steps(what, device=device, seconds=seconds))
        params = getattr(getattr(request.node, "callspec", None), "params", None)
        request.config.stash[RESULTS].append(
            benchmark_json.benchmark(calls[0], name=request.node.name, fullname=request.node.nodeid, params=params)
        )
        return calls[0]

    return measure


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--trainpace-json")
    found = session.config.stash[RESULTS]
    if target is None:
        return
    from reports.formats import benchmark_json

    document = benchmark_json.document(found, datetime.now(UTC))
    target.write_text(json.dumps(document, indent=4), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash[RESULTS]
    if not found:
        return
    from reports.formats import benchmark_json
    from reports.text import listing

    terminalreporter.section("trainpace")
    terminalreporter.write_line(listing.aligned(benchmark_json.rows(found)))
