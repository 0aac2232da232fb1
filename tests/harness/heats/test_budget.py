"""How long repetitions are expected to take, and which arms sit out when time is short."""

from __future__ import annotations

import dataclasses

import pytest

from harness.heats import budget
from harness.record import Measurement, Record
from tests.samples import record


def took(
    label: str, active_s: float, *, workload: str = "gpt2/nano", repetition: int = 0, **measured: object
) -> Record:
    measurement = Measurement(active_s=active_s, **measured)  # type: ignore[arg-type]
    made = record(label, repetition, [])
    return dataclasses.replace(made, workload=workload, measurement=measurement)


def test_all_processes_and_parts_of_the_latest_repetition_count() -> None:
    earlier = [took("fp32", 9.0), took("adam", 5.0)]
    latest = [took("fp32", seconds, repetition=1) for seconds in (2.0, 3.0)]
    assert budget.arm_s([*earlier, *latest]) == {"fp32": 5.0, "adam": 5.0}


def test_what_is_compiled_already_is_not_expected_to_be_compiled_again() -> None:
    cold = took("compile", 37.0, first_step_s=35.0, compile_cache="cold")
    assert budget.arm_s([cold])["compile"] == pytest.approx(2.0 + 35.0 * budget.COMPILED_AGAIN)
    warm = took("compile", 9.0, first_step_s=7.0, compile_cache="warm", repetition=1)
    assert budget.arm_s([cold, warm])["compile"] == 9.0


def test_an_unknown_arm_is_expected_to_take_what_most_take() -> None:
    assert budget.expected_s({"fp32": 4.0, "adam": 1.0, "sgd": 2.0}, ["adam", "new"]) == pytest.approx(3.0 * 1.1)
    assert budget.expected_s({}, ["new"]) == 0.0


def test_dear_arms_sit_out_first_then_the_dearest_until_the_rest_fits() -> None:
    costs_s = {"a": 2.0, "b": 2.1, "c": 1.9, "d": 2.2, "compile": 9.0}
    assert budget.affordable(costs_s, list(costs_s), 1000.0) == ["a", "b", "c", "d"]
    assert budget.affordable(costs_s, list(costs_s), 7.0) == ["a", "b", "c"]
    assert budget.affordable(costs_s, list(costs_s), 1.0) == []


def test_another_workload_shows_what_an_arm_takes_to_be_warm_until_its_own_does() -> None:
    other = [
        took("compile", 41.0, first_step_s=38.0, compile_cache="cold", round_host_times_s=[0.5, 0.5]),
        took("adam", 3.0, round_host_times_s=[0.5, 0.5]),
        took("failed", 60.0),
    ]
    assert budget.start_s(other, "bert/nano") == {"compile": 40.0, "adam": 2.0}
    own = [*other, took("adam", 6.0, workload="bert/nano", round_host_times_s=[0.5, 0.5])]
    assert budget.start_s(own, "bert/nano") == {"compile": 40.0, "adam": 5.0}
    assert budget.start_s(own, "gpt2/nano")["compile"] == pytest.approx(40.0 - 38.0 * (1 - budget.COMPILED_AGAIN))
