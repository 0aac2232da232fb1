"""Comparisons: pairing, verdicts, derived metrics and what may be compared."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from harness.record import Record, Status
from results.compare import Verdict, compare, log_ratios, most_telling
from results.runs import compare_runs, incomparable
from tests.samples import MACHINE, record


def heat(label: str, factors: list[float]) -> list[Record]:
    """One record a repetition, `factor` times slower than a baseline that drifts by half within each repetition."""
    drift = [0.10, 0.11, 0.13, 0.15]
    return [record(label, index, [factor * time_s for time_s in drift]) for index, factor in enumerate(factors)]


BASELINE = heat("fp32", [1.0, 1.3, 0.8])


def row(factors: list[float]) -> tuple[Any, ...]:
    # The machine is 1.0, 1.3 and 0.8 times as slow in the three repetitions: for both arms alike.
    machine = [1.0, 1.3, 0.8]
    arm = heat("arm", [factor * slow for factor, slow in zip(factors, machine, strict=True)])
    found = compare([*BASELINE, *arm], MACHINE)[1]
    return found.speedup, found.verdict


def test_drift_of_the_machine_cancels() -> None:
    assert row([0.5, 0.5, 0.5]) == (pytest.approx(2.0), Verdict.FASTER)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ([0.79, 0.80, 0.81], Verdict.FASTER),
        ([1.29, 1.30, 1.31], Verdict.SLOWER),
        ([0.999, 1.000, 1.001], Verdict.SAME),
        ([0.8, 1.0, 1.25], Verdict.UNCLEAR),
    ],
)
def test_verdicts(factors: list[float], expected: Verdict) -> None:
    assert row(factors)[1] is expected


def test_one_disturbed_step_moves_nothing_much() -> None:
    base = record("fp32", 0, [0.10, 0.10, 0.11, 0.10, 0.10])
    arm = record("arm", 0, [0.20, 0.20, 0.20, 5.00, 0.20])
    (ratio,) = log_ratios([arm], [base])
    assert ratio == pytest.approx(math.log(2))


def test_only_rounds_that_both_ran_are_paired() -> None:
    slow = record("arm", 0, [0.2, 0.3])
    slow.measurement.round_index[:] = [1, 3]
    base = record("fp32", 0, [9.0, 0.1, 9.0, 0.1])
    (ratio,) = log_ratios([slow], [base])
    assert ratio == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_other_repetitions_and_parts_are_never_paired() -> None:
    base = record("fp32", 0, [0.1])
    assert log_ratios([record("arm", 1, [0.1])], [base]) == []
    assert log_ratios([dataclasses.replace(record("arm", 0, [0.1]), heat_part=1)], [base]) == []


def test_one_repetition_is_unclear() -> None:
    found = compare([record("fp32", 0, [0.1]), record("arm", 0, [0.05])], MACHINE)[1]
    assert found.speedup == pytest.approx(2.0)
    assert (found.speedup_low, found.verdict) == (None, Verdict.UNCLEAR)


@pytest.mark.parametrize("status", [item for item in Status if item is not Status.OK])
def test_a_failure_is_shown_and_never_ranked(status: Status) -> None:
    arm = heat("arm", [0.5, 0.65, 0.4])
    arm[1] = dataclasses.replace(arm[1], status=status, reason="why")
    found = compare([*BASELINE, *arm], MACHINE)[1]
    assert (found.status, found.reason, found.verdict, found.speedup) == (status, "why", None, None)


def test_derived_metrics() -> None:
    found = compare(BASELINE, MACHINE)[0]
    assert found.tokens_per_s == pytest.approx(10 * 8 * 128)
    assert found.samples_per_s == pytest.approx(80)
    assert found.data_wait_pct == pytest.approx(10)
    assert found.copy_pct == pytest.approx(20)
    assert found.mfu is None
    assert found.matmul_share is not None
    assert found.gpu_util_pct is None


def test_six_repetitions_change_the_method() -> None:
    base = [record("fp32", index, [0.1]) for index in range(6)]
    arm = [record("arm", index, [0.05 + 0.0001 * index]) for index in range(6)]
    assert "signed-rank, n=6" in str(compare([*base, *arm], MACHINE)[1].method)


def test_more_repetitions_go_where_the_interval_straddles_one() -> None:
    clear, unclear = heat("clear", [0.5, 0.65, 0.4]), heat("unclear", [0.9, 1.4, 0.8])
    assert most_telling([*BASELINE, *clear, *unclear], MACHINE)[0] == ("gpt2/nano", ["unclear"])
    assert most_telling([*BASELINE, *clear], MACHINE)[0] == ("gpt2/nano", ["clear"])


def test_two_runs_are_compared_unpaired() -> None:
    head = heat("fp32", [2.0, 2.6, 1.6])
    (found,) = compare_runs(BASELINE, head, MACHINE)
    assert found.speedup == pytest.approx(0.5)
    assert "not interleaved" in str(found.method)


def test_runs_with_unequal_work_get_no_verdict() -> None:
    head = [dataclasses.replace(item, status=Status.UNEQUAL_WORK, reason="why") for item in heat("fp32", [2.0, 2.6])]
    (found,) = compare_runs(BASELINE, head, MACHINE)
    assert (found.speedup, found.verdict) == (None, None)


def test_machines_and_corpora_must_match() -> None:
    assert incomparable([BASELINE, BASELINE]) == []
    other_machine = [dataclasses.replace(item, machine_id="m2") for item in BASELINE]
    other_text = [dataclasses.replace(item, corpus_sha256="c1") for item in BASELINE]
    assert "machine_id: m1, m2" in incomparable([BASELINE, other_machine])[0]
    other_batch = [dataclasses.replace(item, batch=16) for item in BASELINE]
    assert "batch of gpt2/nano: 16, 8" in incomparable([BASELINE, other_batch])[0]
    assert "corpus_sha256 of gpt2/nano" in incomparable([BASELINE, other_text])[0]
