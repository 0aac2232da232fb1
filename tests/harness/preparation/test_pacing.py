"""Step times that are predicted before anything runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.spec import Plan, WorkloadSpec
from harness.prediction.calls import ANSWERED
from harness.preparation import pacing, predicting
from harness.preparation.forecast import forecast
from harness.preparation.pacing import BESIDE, HIGH, LOW, Operators, paces_of
from harness.preparation.prepared import Prepared, prepare
from harness.processes.fork_server import ForkServer
from harness.telemetry import conditions
from reports.text import dry_run
from tests import pace
from tests.conftest import LEAST

WORKLOAD = "gpt2/nano"


@pytest.fixture
def prepared(fork_server: ForkServer, text_folder: Path) -> Prepared:
    spec = WorkloadSpec(model=WORKLOAD, batch=8, sequence=32, corpus=str(text_folder))
    names = ("adamw_fused", "checkpoint_activations", "ddp_2", "compile", "workers_2")
    compositions = tuple((name,) for name in names)
    return prepare(Plan(name="p", workloads=(spec,), compositions=compositions, protocol=LEAST), fork_server)


@pytest.fixture
def asked(undisturbed: None, fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counter[str]:
    """How many operators were timed, starting with an empty cache."""
    for module in (pacing, predicting):
        monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    counts = Counter[str]()
    run = fork_server.run

    def counting(task: str, arguments: Any, timeout_s: float) -> Any:
        answer = run(task, arguments, timeout_s)
        if task.endswith(":time_operators"):
            counts["timed"] += len((Path(arguments["folder"]) / ANSWERED).read_text().splitlines())
        return answer

    monkeypatch.setattr(fork_server, "run", counting)
    return counts


@pytest.mark.long
def test_paces_are_told_and_operators_timed_once(
    prepared: Prepared, fork_server: ForkServer, asked: Counter[str]
) -> None:
    shown: list[int] = []
    first = paces_of(prepared, fork_server, shown.append)
    plain, checkpoints = first[WORKLOAD, "fp32"].step_time_s, first[WORKLOAD, "checkpoint_activations"].step_time_s
    assert plain and checkpoints
    assert first[WORKLOAD, "fp32"].interval_s == (LOW * plain, HIGH * plain)
    assert first[WORKLOAD, "ddp_2"].reason == "how long ranks wait for each other is known only once they run"
    assert first[WORKLOAD, "compile"].reason == "what torch.compile makes of a model cannot be predicted"
    between = "its operators are the baseline's: it changes only what happens between them"
    assert first[WORKLOAD, "workers_2"].reason == between
    timed = asked["timed"]
    assert timed == shown[0] > 100
    assert paces_of(prepared, fork_server, shown.append) == first
    assert asked["timed"] == timed and len(shown) == 1

    rows = {row["techniques"]: row for row in dry_run.as_json(prepared, forecast(prepared, fork_server), first)}
    assert rows["fp32"]["predicted_step_time_s"] == plain
    assert rows["ddp_2"]["predicted_step_time_s"] is rows["ddp_2"]["predicted_step_time_low_s"] is None
    text = dry_run.dry_run(prepared, forecast(prepared, fork_server), first)
    line = next(line for line in text.splitlines() if "checkpoint_activations" in line)
    assert " ms a step (" in line and "x); " in line
    assert "step time not known: how long ranks wait" in text


@pytest.fixture
def operators(asked: Counter[str], fork_server: ForkServer) -> Operators:
    return Operators("machine", {}, fork_server)


def call(operator: str, *shapes: list[int]) -> str:
    tensors = [{"tensor": [shape, list(torch.empty(shape).stride()), "float32"]} for shape in shapes]
    return json.dumps([operator, tensors, {"named": {}}])


def test_an_operator_that_ends_its_process_is_alone_in_being_unknown(operators: Operators) -> None:
    calls = [call("aten.mm.default", [2, 2], [2, 2]), call("planted.end.default", [9]), call("aten.exp.default", [99])]
    operators.learn(calls, time.monotonic() + 60)
    first, fatal, last = (operators.times_s[item] for item in calls)
    assert first and last and fatal is None


def test_a_call_may_have_any_number_of_tensors(operators: Operators, asked: Counter[str]) -> None:
    """An optimizer passes all weights of a model at once."""
    of_many = json.dumps(["aten._foreach_neg.default", [json.loads(call("", *[[4, 4]] * 4000))[1]], {"named": {}}])
    assert len(of_many) > 1 << 17
    operators.learn([of_many], time.monotonic() + 60)
    assert operators.times_s[of_many]


def test_what_a_user_brings_is_timed_anew(operators: Operators, fork_server: ForkServer) -> None:
    calls = [call("aten.exp.default", [9]), call("planted.same.default", [9])]
    operators.learn(calls, time.monotonic() + 60)
    assert operators.missing(calls) == []
    assert Operators("machine", {}, fork_server).missing(calls) == calls[1:]


def test_what_is_timed_beside_others_is_not_told(operators: Operators, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [call("aten.exp.default", [9])]
    with monkeypatch.context() as patch:
        patch.setattr(conditions, "FOREIGN_SHARE", -1.0)
        operators.learn(calls, time.monotonic() + 60)
    assert operators.missing(calls) == calls
    assert str(operators.disturbed).startswith("operators were timed while other processes took")
    operators.learn(calls, time.monotonic() + 60)
    assert operators.missing(calls) == []


def test_what_is_not_timed_in_time_is_asked_for_once_more(
    prepared: Prepared, fork_server: ForkServer, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.0)
    found = paces_of(prepared, fork_server)[WORKLOAD, "fp32"]
    assert "operators were not timed within 0 s: ask again" in str(found.reason)
    assert found.step_time_s is None and not asked


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
    assert f"it prints {LOW:g} to {HIGH:g}" in said and "| all |" in said
