"""Turns: how long they are, which of their steps are cold, and what happens to disturbed rounds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bench.host import Host
from bench.spec import Protocol, Trial, WorkloadSpec
from harness.heats.arm import Arm
from harness.heats.heat import Heat
from harness.heats.rounds import Rounds, take_turns
from harness.telemetry import conditions
from harness.telemetry.gpus import Gpus
from harness.timing.turns import cold_steps, round_count, spread, turn_steps

PROTOCOL = Protocol(rounds=6, rounds_s=100.0, rounds_min=3, turn_s=0.1, turn_steps=2, watch_s=0.0, pause_s=0.0)


class Told(Arm):
    """An arm without a process. Its steps take 0.05 s, the first of a turn `cold` times as long."""

    def __init__(self, name: str, order: list[str], cold: float = 1.0) -> None:
        trial = Trial(workload=WorkloadSpec(model="gpt2/nano"), techniques=(name,) if name else ())
        super().__init__(trial, request={}, protocol=PROTOCOL, host=Host(device="cpu"), is_cold=False)
        self.name, self.order, self.cold, self.step = name, order, cold, 0.05

    @property
    def alive(self) -> bool:
        return True

    @property
    def step_s(self) -> float:
        return self.step

    def check_parked(self) -> None:
        """Nothing to check: it does nothing while it is parked."""

    def turn(self, index: int) -> None:
        self.order.append(self.name)
        self.measurement.round_index += [index] * self.turn_steps
        self.measurement.round_step_times_s += [0.05 * self.cold] + [0.05] * (self.turn_steps - 1)


def arms(cold: float = 1.0) -> list[Arm]:
    order: list[str] = []
    return [Told(name, order, cold) for name in ("", "adam", "sgd_momentum")]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the watches see, in order; nothing once the list is empty."""
    seen: list[list[str]] = []
    monkeypatch.setattr(conditions, "disturbances", lambda *_, **__: seen.pop(0) if seen else [])
    return seen


def take(found: list[Arm], counts: tuple[int, ...] = (6, 6, 6), lead_steps: int | None = 1) -> Rounds:
    heat = Heat(
        host=Host(device="cpu"),
        protocol=PROTOCOL,
        gpus=Gpus("cpu", ()),
        request={},
        lead_steps=lead_steps,
        draw=random.Random(0),
    )
    return take_turns(heat, found, counts)


def test_a_turn_lasts_its_seconds_and_has_its_least_steps() -> None:
    assert turn_steps(PROTOCOL, 0.01) == 10
    assert turn_steps(PROTOCOL, 0.2) == 2
    assert turn_steps(PROTOCOL, 5.0) == 1


def test_a_slow_arm_takes_fewer_turns_but_the_least() -> None:
    protocol = Protocol(rounds=30, rounds_min=3, rounds_s=1.0, turn_s=0.1, turn_steps=2)
    assert [round_count(protocol, step_s) for step_s in (0.001, 0.05, 0.1, 9.0)] == [10, 10, 5, 3]


def test_every_arm_takes_a_turn_in_every_round_in_a_drawn_order(quiet: list[list[str]]) -> None:
    found = arms()
    take(found)
    order = found[0].order  # type: ignore[attr-defined]
    rounds = [tuple(order[start : start + 3]) for start in range(0, 18, 3)]
    assert {frozenset(names) for names in rounds} == {frozenset({"", "adam", "sgd_momentum"})}
    assert len(set(rounds)) > 1


def test_a_slow_arm_sits_out_rounds_evenly(quiet: list[list[str]]) -> None:
    found = arms()
    take(found, (6, 2, 6))
    assert sorted(set(found[1].measurement.round_index)) == sorted(spread(2, 6)) == [1, 4]


def test_a_disturbed_round_is_dropped_and_replaced(quiet: list[list[str]]) -> None:
    quiet += [[], ["other processes took 50% of the cores"]]
    found = arms()
    rounds = take(found)
    assert (rounds.taken, rounds.dropped, rounds.disturbances) == (7, [1], ["other processes took 50% of the cores"])
    assert not rounds.is_disturbed(least=3)
    assert set(found[0].measurement.round_index) == set(range(7))


def test_no_more_than_a_share_is_replaced(quiet: list[list[str]]) -> None:
    quiet += [[]] + [["busy"]] * 20
    rounds = take(arms())
    assert rounds.taken == 6 + 3 and rounds.is_disturbed(least=3)


def test_what_is_disturbed_from_the_start_is_given_up(quiet: list[list[str]]) -> None:
    quiet += [["busy"]] * 20
    rounds = take(arms())
    assert rounds.taken == 3 and rounds.is_disturbed(least=3)


def test_how_many_steps_are_cold_is_found_from_the_steps(quiet: list[list[str]]) -> None:
    for cold, known, expected in ((1.2, None, 1), (1.001, None, 0), (1.2, 0, 0)):
        found = arms(cold)
        take(found, lead_steps=known)
        assert {arm.lead_steps for arm in found} == {expected}


def test_a_long_step_needs_no_lead(quiet: list[list[str]]) -> None:
    found = arms(cold=1.2)
    found[1].step = 0.6  # type: ignore[attr-defined]
    take(found, lead_steps=None)
    assert [arm.lead_steps for arm in found] == [1, 0, 1]
    assert len(found[1].measurement.round_step_times_s) == 6


def noisy(*excess: float) -> list[list[float]]:
    noise = np.random.default_rng(0).normal(1.0, 0.05, (200, 8))
    found: list[list[float]] = (noise * np.array([1 + item for item in excess] + [1.0] * (8 - len(excess)))).tolist()
    return found


@pytest.mark.parametrize(("excess", "lead"), [((), 0), ((0.01,), 0), ((0.17,), 1), ((0.17, 0.08), 2), ((0.1,) * 4, 4)])
def test_cold_steps_are_found_through_noise(excess: tuple[float, ...], lead: int) -> None:
    assert cold_steps(noisy(*excess)) == lead


def test_of_turns_of_one_step_nothing_is_known() -> None:
    assert cold_steps([[1.0], [2.0]]) == 0 and cold_steps([]) == 0
