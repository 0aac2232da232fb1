"""What a speed-up is worth: how long training takes to reach a given loss on held-out samples.

Complete trainings over several seeds show how many updates that takes, and a heat shows how long an update takes. The
two ratios are measured apart and multiplied, with the uncertainty of both. Trainings with the same seed form a pair, or
a block of several, like the repetitions of a heat (results.contrasts).

A training that ends without reaching the loss counts with its end. The ratio is then a bound on one side, like the
restricted mean of survival times (Royston & Parmar 2013), and the other side is unknown.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from bench.spec import BASELINE
from harness.learning.curve import Training
from harness.record import Status
from results.contrasts import Contrast, contrasts

SEEN = 0.01
"""An arm was trained on held-out samples if its share of them exceeds twice the baseline's by more than this."""


class Worth(StrEnum):
    """What the speed-up of an arm is worth in training."""

    GAIN = "reaches the loss sooner"
    LOSS = "reaches the loss later"
    NEVER = "does not reach the loss"
    UNKNOWN = "not known"
    INVALID = "not comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Arm over baseline, below 1 is better, with bounds that hold for all arms together with 95 %. None is unknown. One
    bound is None if not every training reached the loss."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def times(self, other: Ratio) -> Ratio:
        """The product of both: their logarithms add, and so do the squares of the bounds' logarithmic distances."""
        if self.value is None or other.value is None:
            return Ratio()
        value = self.value * other.value
        return Ratio(value=value, low=_bound(value, self, other, "low"), high=_bound(value, self, other, "high"))


def _bound(value: float, one: Ratio, other: Ratio, side: str) -> float | None:
    off = 0.0
    for ratio in (one, other):
        bound: float | None = getattr(ratio, side)
        if bound is None or ratio.value is None:
            return None
        off += math.log(bound / ratio.value) ** 2
    return value * math.exp(math.sqrt(off) if side == "high" else -math.sqrt(off))


EXACT = Ratio(value=1.0, low=1.0, high=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of one arm. `rate` is its learning rate over the workload's, the best of the `rates` that were tried;
    with `at_edge`, a rate beyond them may be better. `learns_alike`: its certificate equals the baseline's, so only its
    pace was compared. `updates` is None if no training reached the loss. `final_loss` and `final_scores` are those
    after the number of updates that every training was asked for, or where it stopped by itself: `stopped` trainings
    did, after a median of `stopped_after` updates."""

    techniques: str
    seeds: int
    reached: float
    rate: float | None
    rates: tuple[tuple[float, float | None], ...]
    at_edge: bool
    learns_alike: bool
    updates: float | None
    final_loss: float | None
    final_scores: Mapping[str, float]
    stopped: int
    stopped_after: float | None
    updates_ratio: Ratio
    step_ratio: Ratio
    time_ratio: Ratio
    joules_ratio: Ratio
    time_s: float | None
    verdict: Worth
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The whole result. `target` is the loss to reach, None if no training of the baseline has determined one. The
    baseline's median seed reaches it after `updates`, None if the target was given. `joules_per_update` is by label,
    where the machine counts energy. `bytes_per_token` is that of the held-out text, None where the data is not text."""

    workload: Mapping[str, Any]
    device: str
    device_name: str
    target: float | None
    updates: int | None
    price_per_hour: float | None
    baseline: Found | None
    found: tuple[Found, ...]
    trainings: tuple[Training, ...]
    joules_per_update: Mapping[str, float]
    bytes_per_token: float | None
    seconds: float
    version: str
    interrupted: bool = False

    @property
    def base(self) -> str:
        """The label of the arm that the others are compared with."""
        return self.baseline.techniques if self.baseline else BASELINE


def crossing(training: Training, target: float) -> float | None:
    """The number of updates after which the loss was first reached, interpolated linearly; None if never."""
    points = list(zip(training.updates, training.held_out_losses, strict=True))
    for (before, higher), (after, lower) in pairwise(points):
        if lower <= target < higher:
            return before + (after - before) * (higher - target) / (higher - lower)
    return None


def reaches(training: Training, target: float) -> bool:
    return crossing(training, target) is not None


def longest(trainings: Sequence[Training]) -> list[Training]:
    """The longest training of each arm and seed: the shorter ones are its beginning."""
    found: dict[tuple[str, int], Training] = {}
    for item in trainings:
        before = found.setdefault((item.asked.label, item.asked.seed), item)
        if item.asked.most_updates > before.asked.most_updates:
            found[item.asked.label, item.asked.seed] = item
    return list(found.values())


def loss_after(training: Training, updates: int) -> float | None:
    """The loss, interpolated linearly between two evaluations; None if the training did not get so far."""
    points = list(zip(training.updates, training.held_out_losses, strict=True))
    for (before, first), (after, second) in pairwise(points):
        if before <= updates <= after:
            return first + (second - first) * (updates - before) / (after - before)
    return None


def usual_loss(trainings: Sequence[Training], updates: int, baseline: str = BASELINE) -> float | None:
    """The loss of the baseline's median seed after so many updates; None if no seed got so far. Trainings that continue
    until a given loss do not count."""
    own = [item for item in trainings if item.asked.label == baseline and item.asked.until_loss is None]
    losses = [loss_after(item, updates) for item in own]
    known = [loss for loss in losses if loss is not None]
    return statistics.median(known) if known else None


def updates_ratios(trainings: Sequence[Training], target: float, baseline: str = BASELINE) -> dict[str, Ratio]:
    """For each trained arm, its updates until the loss over the baseline's, seed by seed. A training that failed or
    never reached the loss counts with the most updates that it could have had."""
    blocks: dict[int, dict[str, list[float]]] = {}
    late = set()
    for item in trainings:
        reached = crossing(item, target)
        # A seed with trainings of only one arm enters no comparison.
        if (
            reached is None
            and len({other.asked.label for other in trainings if other.asked.seed == item.asked.seed}) > 1
        ):
            late.add(item.asked.label)
        taken = item.asked.most_updates if reached is None else reached
        blocks.setdefault(item.asked.seed, {}).setdefault(item.asked.label, []).append(math.log(taken))
    found = contrasts(list(blocks.values()), baseline)
    return {label: _ratio(contrast, label in late, baseline in late) for label, contrast in found.items()}


def _ratio(found: Contrast, is_bound_below: bool = False, is_bound_above: bool = False) -> Ratio:
    """`is_bound_below`: the arm's values are lower limits; `is_bound_above`: the baseline's are."""
    low = None if found.claim_high is None or is_bound_above else math.exp(-found.claim_high)
    high = None if found.claim_low is None or is_bound_below else math.exp(-found.claim_low)
    return Ratio(value=math.exp(-found.estimate), low=low, high=high)


def step_ratios(
    paces: Mapping[str, Contrast], tokens: Mapping[str, float], baseline: str = BASELINE
) -> dict[str, Ratio]:
    """For each arm, the time of its update over the baseline's. `paces` compare the time per token (or sample), and
    `tokens` is the number of tokens (or samples) per update."""
    made = {}
    for label, found in paces.items():
        factor = tokens.get(label, 1.0) / tokens.get(baseline, 1.0)
        ratio = _ratio(found)
        made[label] = Ratio(
            value=None if ratio.value is None else factor * ratio.value,
            low=None if ratio.low is None else factor * ratio.low,
            high=None if ratio.high is None else factor * ratio.high,
        )
    return made


def verdict(time_ratio: Ratio, reached: float) -> Worth:
    """The verdict by the bounds, never by the estimate."""
    if reached == 0:
        return Worth.NEVER
    if time_ratio.high is not None and time_ratio.high < 1:
        return Worth.GAIN
    if time_ratio.low is not None and time_ratio.low > 1:
        return Worth.LOSS
    return Worth.UNKNOWN


def invalid(own: Sequence[Training], baseline: Sequence[Training]) -> str | None:
    """Why an arm's losses are invalid; None if they are valid. They are not if it was trained on held-out samples, more
    than the baseline, which also sees some because parts of the text occur twice."""
    seen = max((item.seen_share for item in own), default=0.0)
    usual = max((item.seen_share for item in baseline), default=0.0)
    if seen > 2 * usual + SEEN:
        return f"{seen:.0%} of its training data is held out from the others"
    return None


def found(
    label: str,
    *,
    trainings: Sequence[Training],
    tuned: Sequence[Training],
    target: float,
    updates_ratio: Ratio,
    step_ratio: Ratio,
    joules_ratio: Ratio,
    step_time_s: float | None,
    failure: str | None = None,
    learns_alike: bool = False,
    baseline: str = BASELINE,
) -> Found:
    """The result of one arm. `step_time_s` is the arm's own; `failure` says why it has no pace."""
    source = baseline if learns_alike else label
    own = [item for item in trainings if item.asked.label == source]
    crossings = [crossing(item, target) for item in own]
    reached = [item for item in crossings if item is not None]
    broken = next((item for item in own if item.status is not Status.OK), None)
    reason = failure or (f"{broken.status.value}: {broken.reason}" if broken and not reached else None)
    cheated = invalid(own, [item for item in trainings if item.asked.label == baseline])
    time_ratio = updates_ratio.times(step_ratio)
    share = len(reached) / len(own) if own else 0.0
    said = Worth.INVALID if cheated else Worth.UNKNOWN if failure else verdict(time_ratio, share)
    rates = tuple(sorted(tried_rates(tuned, source).items()))
    rate = best_rate(tuned, source)
    updates = statistics.median(reached) if reached else None
    stopped = [item.stopped_after for item in own if item.stopped_after]
    ends = [loss_after(item, min(item.stopped_after or item.asked.updates, item.asked.updates)) for item in own]
    losses = [loss for loss in ends if loss is not None]
    return Found(
        techniques=label,
        seeds=len(own),
        reached=share,
        rate=rate,
        rates=rates,
        at_edge=rate is not None and rate in (rates[0][0], rates[-1][0]) and len(rates) > 1,
        learns_alike=learns_alike,
        updates=updates,
        final_loss=statistics.median(losses) if losses else None,
        final_scores=_median_scores(own),
        stopped=len(stopped),
        stopped_after=statistics.median(stopped) if stopped else None,
        updates_ratio=Ratio() if cheated else updates_ratio,
        step_ratio=step_ratio,
        time_ratio=Ratio() if cheated else time_ratio,
        joules_ratio=Ratio() if cheated else updates_ratio.times(joules_ratio),
        time_s=updates * step_time_s if updates is not None and step_time_s is not None else None,
        verdict=said,
        reason=cheated or reason,
    )


def _median_scores(trainings: Sequence[Training]) -> dict[str, float]:
    """The median of each score over the trainings that have it."""
    names = dict.fromkeys(name for item in trainings for name in item.scores)
    return {name: statistics.median(item.scores[name] for item in trainings if name in item.scores) for name in names}


def tried_rates(tuned: Sequence[Training], label: str) -> dict[float, float | None]:
    """By rate, the final loss of the training that tried it; None if it failed."""
    return {
        item.asked.rate: item.held_out_losses[-1] if item.status is Status.OK and item.held_out_losses else None
        for item in tuned
        if item.asked.label == label
    }


def best_rate(tuned: Sequence[Training], label: str) -> float | None:
    """The rate whose training ended with the lowest loss."""
    known = {rate: loss for rate, loss in tried_rates(tuned, label).items() if loss is not None}
    return min(known, key=lambda rate: known[rate]) if known else None


ALIKE = 0.02
"""The share of a loss by which trainings of two seeds may differ."""


def careful_rate(tuned: Sequence[Training], label: str) -> float | None:
    """The lowest of the rates whose training ended about as low as the best: at the highest rates that still learn, the
    loss of one training says little about the next."""
    known = {rate: loss for rate, loss in tried_rates(tuned, label).items() if loss is not None}
    return min((rate for rate, loss in known.items() if loss <= (1 + ALIKE) * min(known.values())), default=None)


STRIDE = math.sqrt(10)
"""The factor between the learning rates that are tried first."""


def is_enclosed(tried: Mapping[float, float | None]) -> bool:
    """Whether rates on both sides of the best one were tried."""
    known = {rate: loss for rate, loss in tried.items() if loss is not None}
    return bool(known) and min(tried) < min(known, key=lambda rate: known[rate]) < max(tried)


def next_rate(tried: Mapping[float, float | None]) -> float:
    """The rate to try next. If the best one lacks a neighbour, it is one STRIDE up, or else down; otherwise it lies
    between the best and its better neighbour. A failed training is worse than any other."""
    if not tried:
        return 1.0
    losses = {rate: math.inf if loss is None else loss for rate, loss in tried.items()}
    best = min(losses, key=lambda rate: (losses[rate], rate))
    above, below = (sorted(rate for rate in losses if rate > best), sorted(rate for rate in losses if rate < best))
    if not above:
        return best * STRIDE
    if not below:
        return best / STRIDE
    near = min((above[0], below[-1]), key=lambda rate: losses[rate])
    return math.sqrt(best * near)
