"""Time to the same loss: what trainings show, what they do not show, and how often the bounds hold."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.spec import BASELINE
from harness.learning.curve import Asked, Training
from harness.record import Status
from results import curves, worth
from results.contrasts import Contrast
from results.worth import EXACT, Ratio, Worth

UPDATES = 900


def training(
    label: str,
    seed: int,
    *,
    pace: float = 1.0,
    noise: float = 0.0,
    rate: float = 1.0,
    draw: random.Random | None = None,
) -> Training:
    """A training whose loss falls as a power of the updates, `pace` times as fast."""
    luck = math.exp((draw or random.Random(seed)).gauss(0, noise)) if noise else 1.0
    updates = tuple(range(0, UPDATES + 1, 50))
    return Training(
        asked=Asked(techniques=() if label == BASELINE else (label,), seed=seed, rate=rate, updates=UPDATES),
        updates=updates,
        held_out_losses=tuple(5 * (1 + pace * luck * update / 20) ** -0.25 for update in updates),
        train_losses=tuple(0.0 for _ in updates[1:]),
        tokens_per_update=1024.0,
    )


def several(label: str, seeds: Sequence[int], **how: float) -> list[Training]:
    return [training(label, seed, **how) for seed in seeds]  # type: ignore[arg-type]


def test_a_loss_is_reached_between_two_evaluations() -> None:
    item = training(BASELINE, 0)
    reached = worth.crossing(item, 2.2)
    assert reached is not None
    exact = 20 * ((5 / 2.2) ** 4 - 1)
    assert reached == pytest.approx(exact, rel=0.01)
    assert worth.crossing(item, 1.0) is None
    assert worth.loss_after(item, 75) == pytest.approx(5 * (1 + 75 / 20) ** -0.25, rel=0.02)


def test_a_training_that_ended_by_itself_is_told_from_one_that_failed() -> None:
    whole = training("early_stopping_3", 0)
    ended = dataclasses.replace(whole, updates=whole.updates[:7], held_out_losses=whole.held_out_losses[:7])
    assert (whole.stopped_after, ended.stopped_after) == (None, 300)
    assert dataclasses.replace(ended, status=Status.DIVERGED).stopped_after is None
    # A training that continues until a loss ends when it reaches it, or when it gives up.
    for until, after in ((whole.held_out_losses[-1], None), (1.0, UPDATES)):
        asked = dataclasses.replace(whole.asked, until_loss=until)
        assert dataclasses.replace(whole, asked=asked).stopped_after == after


def test_of_one_seed_the_training_that_went_on_counts() -> None:
    item = training(BASELINE, 0)
    longer = dataclasses.replace(item, asked=dataclasses.replace(item.asked, until_loss=1.9))
    other = training("a", 0)
    assert worth.longest([item, other, longer]) == worth.longest([longer, other, item])
    assert longer in worth.longest([item, longer, other]) and len(worth.longest([item, longer, other])) == 2
    assert not worth.reaches(item, 1.0) and longer.asked.most_updates == 3 * UPDATES


def test_seeds_that_are_compared_with_nothing_leave_the_bounds_alone() -> None:
    """When the time is up there may be more trainings of the baseline, which end before the median seed's loss."""
    trainings = [*several(BASELINE, range(3), noise=0.02), *several("a", range(3), noise=0.02, pace=1.5)]
    alone = training(BASELINE, 3, pace=0.2)
    target = 2.2
    assert not worth.reaches(alone, target)
    assert worth.updates_ratios([*trainings, alone], target) == worth.updates_ratios(trainings, target)
    assert worth.updates_ratios(trainings, target)["a"].low is not None


def test_the_loss_to_reach_is_told_by_those_that_did_not_go_on_to_it() -> None:
    own = several(BASELINE, range(4), noise=0.1)
    goes_on = [dataclasses.replace(item, asked=dataclasses.replace(item.asked, until_loss=2.0)) for item in own]
    assert worth.usual_loss([*own, *goes_on[:2]], 600) == worth.usual_loss(own, 600)
    assert worth.usual_loss(goes_on, 600) is None


def test_twice_as_fast_takes_half_the_updates() -> None:
    trainings = several(BASELINE, range(5), noise=0.05) + several("a", range(5), noise=0.05, pace=2.0)
    target = worth.usual_loss(trainings, 600)
    assert target is not None
    found = worth.updates_ratios(trainings, target)["a"]
    assert found.low is not None and found.high is not None and found.value is not None
    assert found.low < 0.5 * 1.02 and found.high > 0.5 * 0.98 and found.value == pytest.approx(0.5, rel=0.05)


def test_what_does_not_get_there_is_a_bound_and_never_dropped() -> None:
    trainings = several(BASELINE, range(5)) + several("a", range(5), pace=0.4)
    target = worth.usual_loss(trainings, 600)
    assert target is not None
    found = worth.updates_ratios(trainings, target)["a"]
    assert found.high is None and found.low is not None and 1 < found.low <= UPDATES / 600 + 0.01
    told = worth.found(
        "a",
        trainings=trainings,
        tuned=[],
        target=target,
        updates_ratio=found,
        step_ratio=Ratio(value=0.5, low=0.49, high=0.51),
        joules_ratio=Ratio(),
        step_time_s=0.01,
    )
    assert told.reached == 0 and told.verdict is Worth.NEVER and told.time_s is None


def test_steps_twice_as_fast_that_teach_half_as_much_are_worth_nothing() -> None:
    trainings = several(BASELINE, range(5), noise=0.03) + several("a", range(5), noise=0.03, pace=0.7)
    target = worth.usual_loss(trainings, 600)
    assert target is not None
    step = Ratio(value=0.7, low=0.69, high=0.71)
    time_ratio = worth.updates_ratios(trainings, target)["a"].times(step)
    assert worth.verdict(time_ratio, 1.0) is Worth.UNKNOWN
    assert worth.verdict(worth.updates_ratios(trainings, target)["a"].times(EXACT), 1.0) is Worth.LOSS


def test_the_baseline_against_itself_holds_one_as_often_as_is_said() -> None:
    """Other seeds of the same training are neither gain nor loss: 95 of 100 pairs of bounds contain 1."""
    draw, held, times = random.Random(0), 0, 400
    for _ in range(times):
        trainings = [training(label, seed, noise=0.1, draw=draw) for label in (BASELINE, "a") for seed in range(5)]
        target = worth.usual_loss(trainings, 500)
        assert target is not None
        found = worth.updates_ratios(trainings, target)["a"]
        held += (found.low is None or found.low <= 1) and (found.high is None or found.high >= 1)
    assert 0.93 <= held / times <= 0.98


def test_an_update_of_more_tokens_takes_longer() -> None:
    paces = {"a": Contrast(estimate=math.log(2), claim_low=math.log(1.9), claim_high=math.log(2.1), method="")}
    found = worth.step_ratios(paces, {BASELINE: 1024.0, "a": 4096.0})["a"]
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(4 / 2.1) and found.high == pytest.approx(4 / 1.9)


def test_what_was_trained_on_the_held_out_text_is_not_comparable() -> None:
    honest = several(BASELINE, range(3))
    assert worth.invalid(honest, honest) is None
    cheat = [dataclasses.replace(item, seen_share=0.4) for item in honest]
    assert "40%" in str(worth.invalid(cheat, honest))


def test_rates_are_tried_around_the_best() -> None:
    best, tried = 20.0, dict[float, float | None]()
    for _ in range(6):
        rate = worth.next_rate(tried)
        assert rate not in tried
        # Far above the best rate, training diverges.
        tried[rate] = None if rate > 60 else abs(math.log(rate / best))
    chosen = min((rate for rate in tried if tried[rate] is not None), key=lambda rate: tried[rate] or 0.0)
    assert 10 < chosen < 40
    assert any(rate > chosen for rate in tried) and any(rate < chosen for rate in tried)


def test_of_rates_that_do_as_well_the_least_is_taken() -> None:
    tuned = [training("sgd", 0, rate=rate, pace=pace) for rate, pace in ((1, 0.5), (3, 0.98), (10, 1.0), (30, 0.7))]
    assert worth.best_rate(tuned, "sgd") == 10
    assert worth.careful_rate(tuned, "sgd") == 3
    assert worth.careful_rate(tuned, "adam") is None


def test_trainings_are_kept_as_they_are(tmp_path: Path) -> None:
    plain = training("a", 3, rate=0.5)
    whole = dataclasses.replace(plain, asked=dataclasses.replace(plain.asked, until_loss=2.1))
    broken = Training(asked=Asked(techniques=("b", "c"), seed=1, rate=1.0, updates=9), status=Status.OOM, reason="why")
    for item in (whole, broken):
        curves.write(item, tmp_path, "compared")
    assert curves.read(tmp_path, "compared") == [whole, broken]
    assert curves.read(tmp_path, "tuning") == []
