"""The time of trainpace's own parts: `nox -s benchmarks`. Compare two result files with `pytest-benchmark compare`."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.corpus import open_corpus
from bench.spec import WorkloadSpec
from harness.processes.fork_server import ForkServer, Process
from reports.page import html
from results import store
from results.compare import compare
from tests import ROOT
from tests.reports.synthetic import PLAN, keep, machine, run

REQUEST = {
    "workload": dataclasses.asdict(WorkloadSpec(model="gpt2/nano", batch=4, sequence=32)),
    "techniques": [],
    "device": "cpu",
    "seed": 0,
    "replicas": 1,
}


@pytest.fixture(scope="module")
def started() -> Iterator[ForkServer]:
    with ForkServer() as found:
        found.wait_ready()
        yield found


def built(fork_server: ForkServer) -> Process:
    arm = fork_server.fork(REQUEST | {"corpus": dataclasses.asdict(open_corpus(None))})
    arm.call({"do": "build"}, 60)
    return arm


def test_arm_start(benchmark: Any, started: ForkServer) -> None:
    """From the request for an arm to the end of its first step."""

    def start() -> None:
        arm = built(started)
        arm.call({"do": "steps", "with": {"count": 1}}, 60)
        arm.kill()

    benchmark.pedantic(start, rounds=10, warmup_rounds=1)


def test_command_round_trip(benchmark: Any, started: ForkServer) -> None:
    """A command that an arm answers with its memory peaks."""
    arm = built(started)
    benchmark(lambda: arm.call({"do": "peaks"}, 60))
    arm.kill()


def test_write_record(benchmark: Any, tmp_path: Path) -> None:
    """One parquet part, synced to disk."""
    made = run()[0]
    count = itertools.count()

    def write() -> None:
        store.write(dataclasses.replace(made, repetition=next(count)), tmp_path, machine=machine(), plan=PLAN)

    benchmark(write)


def test_render_report(benchmark: Any) -> None:
    """The HTML report of a run of fifteen arms."""
    made = run()
    benchmark.pedantic(
        lambda: html.render(compare(made, machine()), made, machine(), PLAN, captions={}), rounds=5, warmup_rounds=1
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of fifteen arms."""
    return keep(tmp_path_factory.mktemp("kept"))


@pytest.mark.benchmark(group="start-up")
@pytest.mark.parametrize("command", ["-c pass", "--help", "--version", "run --techniques", "list techniques"])
def test_start_up(benchmark: Any, command: str) -> None:
    """Whole processes. The table shows each as a multiple of the fastest, which is Python with nothing to do."""
    start(benchmark, command.split() if command.startswith("-c") else ["-m", "bench", *command.split()])


@pytest.mark.benchmark(group="start-up")
@pytest.mark.parametrize("command", ["compare", "report", "history"])
def test_start_up_on_a_run(benchmark: Any, kept: Path, tmp_path: Path, command: str) -> None:
    out = [] if command == "compare" else ["--out", str(tmp_path / "page.html")]
    start(benchmark, ["-m", "bench", command, str(kept), *out])


@pytest.mark.benchmark(group="start-up")
def test_start_up_of_the_doctor(benchmark: Any) -> None:
    """A second of it is spent on watching what other programs do."""
    start(benchmark, ["-m", "bench", "doctor", "--machine"])


def start(benchmark: Any, arguments: list[str]) -> None:
    def process() -> None:
        # No check, because a usage error is among the things that are timed.
        subprocess.run([sys.executable, *arguments], capture_output=True, cwd=ROOT, check=False)

    benchmark.pedantic(process, rounds=5, warmup_rounds=1)
