"""Step times that are told before anything runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.spec import Plan, WorkloadSpec
from harness.preparation import pacing, predicting
from harness.preparation.forecast import forecast
from harness.preparation.pacing import BESIDE, HIGH, LOW, paces_of
from harness.preparation.prepared import Prepared, prepare
from harness.processes.fork_server import ArmFailed, ForkServer
from harness.record import Status
from reports.text import dry_run
from tests import pace
from tests.conftest import LEAST

WORKLOAD = "gpt2/nano"


@pytest.fixture
def prepared(fork_server: ForkServer, text_folder: Path) -> Prepared:
    spec = WorkloadSpec(model=WORKLOAD, batch=8, sequence=32, corpus=str(text_folder))
    compositions = (("adamw_fused",), ("checkpoint_activations",), ("ddp_2",), ("compile",))
    return prepare(Plan(name="p", workloads=(spec,), compositions=compositions, protocol=LEAST), fork_server)


@pytest.fixture
def asked(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counter[str]:
    """How many operators were timed and arms tried, in an empty cache."""
    for module in (pacing, predicting):
        monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    counts = Counter[str]()
    run = fork_server.run

    def counting(task: str, arguments: Any, timeout_s: float) -> Any:
        counts[task.rpartition(":")[2]] += len(arguments.get("calls", ()))
        return run(task, arguments, timeout_s)

    monkeypatch.setattr(fork_server, "run", counting)
    return counts


def test_paces_are_told_and_operators_timed_once(
    prepared: Prepared, fork_server: ForkServer, asked: Counter[str]
) -> None:
    shown: list[int] = []
    first = paces_of(prepared, fork_server, shown.append)
    plain, checkpoints = first[WORKLOAD, "fp32"].step_time_s, first[WORKLOAD, "checkpoint_activations"].step_time_s
    assert plain and checkpoints
    assert first[WORKLOAD, "fp32"].interval_s == (LOW * plain, HIGH * plain)
    assert first[WORKLOAD, "ddp_2"].reason == "how long ranks wait for each other, only running shows"
    assert first[WORKLOAD, "compile"].reason == "what torch.compile makes of a model is its own choice"
    assert asked["time_operators"] == shown[0] > 100
    timed = asked["time_operators"]
    assert paces_of(prepared, fork_server, shown.append) == first
    assert asked["time_operators"] == timed and len(shown) == 1

    rows = {row["techniques"]: row for row in dry_run.as_json(prepared, forecast(prepared, fork_server), first)}
    assert rows["fp32"]["predicted_step_time_s"] == plain
    assert rows["ddp_2"]["predicted_step_time_s"] is rows["ddp_2"]["predicted_step_time_low_s"] is None
    text = dry_run.dry_run(prepared, forecast(prepared, fork_server), first)
    line = next(line for line in text.splitlines() if "checkpoint_activations" in line)
    assert " ms a step (" in line and "x); " in line
    assert "step time not known: how long ranks wait" in text


def test_an_operator_that_ends_its_process_is_alone_in_being_unknown(
    prepared: Prepared, fork_server: ForkServer, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fork_server.run

    def fatal(task: str, arguments: Any, timeout_s: float) -> Any:
        if any("_fused_adamw_" in call for call in arguments.get("calls", ())):
            raise ArmFailed(Status.CRASHED, "the process ended on signal 11")
        return run(task, arguments, timeout_s)

    monkeypatch.setattr(fork_server, "run", fatal)
    found = paces_of(prepared, fork_server)
    assert found[WORKLOAD, "adamw_fused"].reason == "aten._fused_adamw_.default cannot be timed by itself"
    assert found[WORKLOAD, "fp32"].step_time_s


def test_what_takes_too_long_to_time_is_asked_for_once_more(
    prepared: Prepared, fork_server: ForkServer, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fork_server.run

    def slow(task: str, arguments: Any, timeout_s: float) -> Any:
        if any("_fused_adamw_" in call for call in arguments.get("calls", ())):
            raise ArmFailed(Status.TIMEOUT, "no answer")
        return run(task, arguments, timeout_s)

    with monkeypatch.context() as patch:
        patch.setattr(fork_server, "run", slow)
        first = paces_of(prepared, fork_server)
    assert first[WORKLOAD, "fp32"].step_time_s
    assert "operators were not timed within 60 s: ask once more" in str(first[WORKLOAD, "adamw_fused"].reason)
    assert paces_of(prepared, fork_server)[WORKLOAD, "adamw_fused"].step_time_s


def test_what_is_said_of_predictions_is_what_the_records_say() -> None:
    lines = pace.kept()
    assert len(lines) > 40
    assert pytest.approx(pace.beside(lines), abs=0.03) == BESIDE
    low, high = pace.bounds(lines)
    assert pytest.approx(low, abs=0.05) == LOW
    assert pytest.approx(high, abs=0.05) == HIGH
    right = pace.signs(lines)
    assert sum(right) >= 0.95 * len(right)
    said = pace.section(lines)
    assert f"trainpace prints {LOW:g} to {HIGH:g}" in said and "| all |" in said
