"""The pace of a record: what counts, what is left out, and how a drift of the machine affects it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from harness.record import Record
from results.pace import centre, log_paces_together, rate_per_s, share, step_time_s, turns
from tests.samples import record


def taken(turns_s: list[list[float]], lead_steps: int = 0) -> Record:
    """A record with these turns, one per round."""
    made = record("arm", 0, [time_s for times_s in turns_s for time_s in times_s])
    made.measurement.round_index[:] = [index for index, times_s in enumerate(turns_s) for _ in times_s]
    return dataclasses.replace(made, lead_steps=lead_steps)


def test_cold_steps_are_not_counted() -> None:
    cold = taken([[9.0, 0.2, 0.2], [5.0, 0.2, 0.2]], lead_steps=1)
    assert step_time_s(cold) == pytest.approx(0.2)
    assert [turn.steps for turn in turns(cold)] == [2, 2]


def test_a_turn_never_loses_its_last_step() -> None:
    assert step_time_s(taken([[0.3]], lead_steps=2)) == pytest.approx(0.3)


def test_dropped_rounds_and_disturbed_repetitions_are_not_counted() -> None:
    found = taken([[0.1, 0.1], [7.0, 7.0], [0.1, 0.1]])
    assert step_time_s(dataclasses.replace(found, dropped_rounds=[1])) == pytest.approx(0.1)
    assert turns(dataclasses.replace(found, disturbed=True)) == []
    assert step_time_s(dataclasses.replace(found, disturbed=True)) is None


def test_the_figures_of_one_arm_agree() -> None:
    found = taken([[0.5, 0.1, 0.12], [0.4, 0.11, 0.1], [0.3, 0.13, 0.12]], lead_steps=1)
    time_s, tokens, samples = step_time_s(found), rate_per_s(found, "tokens"), rate_per_s(found, "samples")
    assert time_s is not None and tokens is not None and samples is not None
    assert tokens * time_s == pytest.approx(1024) and samples * time_s == pytest.approx(8)
    assert share(found, "data_wait_s") == pytest.approx(0.1)


def test_what_is_not_text_has_no_tokens() -> None:
    found = taken([[0.1]])
    found.measurement.round_tokens[:] = []
    assert rate_per_s(found, "tokens") is None
    assert turns(found)[0].log_pace == pytest.approx(math.log(0.1 / 8))


def test_one_interrupted_turn_moves_the_centre_little() -> None:
    assert centre([0.2, 0.2, 0.2, 5.0, 0.2]) == pytest.approx(0.2)
    assert centre([]) is None


def test_a_drift_of_the_machine_cancels() -> None:
    drift = [1.0, 1.1, 1.3, 1.5, 0.7]
    arms = [taken([[pace * slow] for slow in drift]) for pace in (0.1, 0.2, 0.15)]
    found = log_paces_together(arms)
    assert None not in found
    assert np.diff(np.array(found, dtype=float)) == pytest.approx([math.log(2), math.log(0.75)])


def test_only_rounds_that_another_arm_took_part_in_tell_anything() -> None:
    slow, base = taken([[0.2], [0.3]]), taken([[9.0], [0.1], [9.0], [0.1]])
    slow.measurement.round_index[:] = [1, 3]
    own, other = log_paces_together([slow, base])
    assert own is not None and other is not None
    assert own - other == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_arms_that_never_met_have_no_pace() -> None:
    first, second = taken([[0.1]]), taken([[0.1]])
    second.measurement.round_index[:] = [1]
    assert log_paces_together([first, second]) == [None, None]
