"""What trainpace itself takes: `nox -s benchmarks`. Compare two of its files with `pytest-benchmark compare`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.corpus import open_corpus
from bench.spec import WorkloadSpec
from harness.nursery import Nursery, Process
from reports import html
from results import store
from results.compare import compare
from tests.reports.synthetic import PLAN, machine, run

REQUEST = {
    "workload": dataclasses.asdict(WorkloadSpec(model="gpt2/nano", batch=4, sequence=32)),
    "techniques": [],
    "device": "cpu",
    "seed": 0,
    "replicas": 1,
}


@pytest.fixture(scope="module")
def started() -> Iterator[Nursery]:
    with Nursery() as found:
        found.wait_ready()
        yield found


def built(nursery: Nursery) -> Process:
    arm = nursery.fork(REQUEST | {"corpus": dataclasses.asdict(open_corpus(None))})
    arm.call({"do": "build"}, 60)
    return arm


def test_arm_start(benchmark: Any, started: Nursery) -> None:
    """From asking for an arm to the end of its first step."""

    def start() -> None:
        arm = built(started)
        arm.call({"do": "steps", "with": {"count": 1}}, 60)
        arm.kill()

    benchmark.pedantic(start, rounds=10, warmup_rounds=1)


def test_command_round_trip(benchmark: Any, started: Nursery) -> None:
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
