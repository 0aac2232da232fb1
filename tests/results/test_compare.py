"""Comparisons: pairing, verdicts and what may be compared."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from harness.record import Record, Status
from results.compare import Comparison, Verdict, compare, most_telling
from results.runs import compare_runs, told
from results.summary import conditions, incomparable
from tests.samples import MACHINE, record


def heat(label: str, factors: list[float]) -> list[Record]:
    """One record per repetition, `factor` times slower than a baseline that drifts by half within each repetition."""
    drift = [0.10, 0.11, 0.13, 0.15]
    return [record(label, index, [factor * time_s for time_s in drift]) for index, factor in enumerate(factors)]


BASELINE = heat("fp32", [1.0, 1.3, 0.8])


def row(factors: list[float]) -> tuple[Any, ...]:
    # In the three repetitions the machine is 1.0, 1.3 and 0.8 times as slow, for both arms alike.
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


def test_other_repetitions_and_parts_are_never_paired() -> None:
    base = record("fp32", 0, [0.1])
    for arm in (record("arm", 1, [0.1]), dataclasses.replace(record("arm", 0, [0.1]), heat_part=1)):
        assert compare([base, arm], MACHINE)[1].speedup is None


def test_a_disturbed_repetition_is_counted_as_dropped_and_in_nothing_else() -> None:
    bad = [dataclasses.replace(record(label, 3, [9.0]), disturbed=True) for label in ("fp32", "arm")]
    arm = heat("arm", [0.5, 0.65, 0.4])
    whole, without = compare([*BASELINE, *arm, *bad], MACHINE), compare([*BASELINE, *arm], MACHINE)
    assert [dataclasses.replace(row, dropped=0) for row in whole] == without
    assert [row.dropped for row in whole] == [1, 1]


def test_all_processes_of_the_baseline_count() -> None:
    copies = [dataclasses.replace(record("fp32", 0, [0.3] * 4), copy=1)]
    base, arm = record("fp32", 0, [0.1] * 4), record("arm", 0, [0.1] * 4)
    assert compare([base, *copies, arm], MACHINE)[1].speedup == pytest.approx(math.sqrt(3))


def test_an_open_verdict_says_what_it_would_take() -> None:
    arm = heat("arm", [0.98, 1.31, 0.81])
    for item in (*BASELINE, *arm):
        item.measurement.active_s = 2.0
    found = compare([*BASELINE, *arm], MACHINE)[1]
    assert found.verdict is Verdict.UNCLEAR and found.claim_high is not None and found.speedup is not None
    width, effect = math.log(found.claim_high / found.speedup), abs(math.log(found.speedup))
    more = math.ceil(3 * (width / max(effect, math.log(1.02) - effect)) ** 2) - 3
    assert found.seconds_to_know == pytest.approx(4.0 * more)
    clear = compare([*BASELINE, *heat("arm", [0.5, 0.65, 0.4])], MACHINE)[1]
    assert clear.seconds_to_know is None


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


def test_bounds_for_all_arms_are_wider_than_for_one() -> None:
    def arms(count: int) -> list[Record]:
        return [item for index in range(count) for item in heat(f"arm{index}", [1.0, 1.31, 0.79])]

    (one,) = compare([*BASELINE, *arms(1)], MACHINE)[1:]
    assert one.claim_low == pytest.approx(one.speedup_low) and one.claim_high == pytest.approx(one.speedup_high)
    for row in compare([*BASELINE, *arms(3)], MACHINE)[1:]:
        assert row.claim_low is not None and row.speedup_low is not None and row.claim_low < row.speedup_low


def test_more_repetitions_go_where_bounds_are_wide_whatever_the_direction() -> None:
    narrow, wide = heat("narrow", [1.0, 1.3001, 0.8001]), heat("wide", [0.45, 0.65, 0.41])
    other = [dataclasses.replace(item, workload="other") for item in (*BASELINE, *narrow)]
    order = most_telling([*BASELINE, *narrow, *wide, *other], MACHINE)
    assert order[:2] == [("gpt2/nano", ["narrow", "wide"]), ("gpt2/nano", ["wide"])]
    assert order[2][0] == "other"


def against_baseline(head: list[Record]) -> list[Comparison]:
    return compare_runs(told(BASELINE, MACHINE), told(head, MACHINE))


def differences(*runs: list[Record]) -> list[str]:
    return incomparable([conditions(records) for records in runs])


def test_two_runs_are_compared_unpaired() -> None:
    head = heat("fp32", [2.0, 2.6, 1.6])
    (found,) = against_baseline(head)
    assert found.speedup == pytest.approx(0.5)
    assert "not interleaved" in str(found.method)


def test_runs_with_unequal_work_get_no_verdict() -> None:
    head = [dataclasses.replace(item, status=Status.UNEQUAL_WORK, reason="why") for item in heat("fp32", [2.0, 2.6])]
    (found,) = against_baseline(head)
    assert (found.speedup, found.verdict) == (None, None)


def test_machines_and_corpora_must_match() -> None:
    assert differences(BASELINE, BASELINE) == []
    other_machine = [dataclasses.replace(item, machine_id="m2") for item in BASELINE]
    other_text = [dataclasses.replace(item, corpus_sha256="c1") for item in BASELINE]
    assert "machine_id: m1, m2" in differences(BASELINE, other_machine)[0]
    other_batch = [dataclasses.replace(item, batch=16) for item in BASELINE]
    assert "batch of gpt2/nano: 16, 8" in differences(BASELINE, other_batch)[0]
    assert "corpus_sha256 of gpt2/nano" in differences(BASELINE, other_text)[0]
