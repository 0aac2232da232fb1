"""What a speed-up is worth: how long training takes until a loss on held-out samples is reached.

How many updates that takes is told by complete trainings over several seeds, how long an update takes by a heat; the
two are kept apart, and multiplied with what is not known of either. Trainings of one seed are a pair, or a block of
several, as repetitions of a heat are (results.contrasts).

A training that has not reached the loss at its end counts with its end: the ratio is then a bound on one side, as the
restricted mean of survival times is (Royston & Parmar 2013), and the other side is not known.
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
"""So much more of what is held out than the baseline has an arm that was trained on it."""


class Worth(StrEnum):
    """Of an arm: what its speed-up is worth in training."""

    GAIN = "reaches the loss sooner"
    LOSS = "reaches the loss later"
    NEVER = "does not reach the loss"
    UNKNOWN = "not known"
    INVALID = "not comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Arm over baseline, below 1 is better, with bounds that hold for all arms together with 95 %. None is unknown; of
    a ratio with trainings that did not reach the loss one bound is."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def times(self, other: Ratio) -> Ratio:
        """Both together: their logarithms add, and so do the squares of what is not known of them."""
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
    """What came of one arm. `rate` is its learning rate over the workload's, the best of those `rates` that were tried;
    `at_edge`: a rate beyond those may be better. `learns_alike`: its certificate is the baseline's, so that only its
    pace was compared. `updates` is None where no training reached the loss; `final_loss` and `final_scores` are those
    after as many updates as every training has, or where it ended by itself: `stopped` trainings did, the median of
    them after `stopped_after` updates."""

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
    """All that was found. `target` is the loss that was to be reached: None where no training of the baseline has told
    one; after `updates` the baseline's median seed has reached it, None where it was given. `joules_per_update` are by
    label, where the machine counts them; a token of the held-out text stands for so many bytes, None where it is no
    text."""

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
        """What the others are held against."""
        return self.baseline.techniques if self.baseline else BASELINE


def crossing(training: Training, target: float) -> float | None:
    """After how many updates the loss was reached first, between two evaluations by a straight line."""
    points = list(zip(training.updates, training.held_out_losses, strict=True))
    for (before, higher), (after, lower) in pairwise(points):
        if lower <= target < higher:
            return before + (after - before) * (higher - target) / (higher - lower)
    return None


def reaches(training: Training, target: float) -> bool:
    return crossing(training, target) is not None


def longest(trainings: Sequence[Training]) -> list[Training]:
    """Of each arm and seed the one that has gone on: those that end before are its beginning."""
    found: dict[tuple[str, int], Training] = {}
    for item in trainings:
        before = found.setdefault((item.asked.label, item.asked.seed), item)
        if item.asked.most_updates > before.asked.most_updates:
            found[item.asked.label, item.asked.seed] = item
    return list(found.values())


def loss_after(training: Training, updates: int) -> float | None:
    """Between two evaluations by a straight line; None where it did not get so far."""
    points = list(zip(training.updates, training.held_out_losses, strict=True))
    for (before, first), (after, second) in pairwise(points):
        if before <= updates <= after:
            return first + (second - first) * (updates - before) / (after - before)
    return None


def usual_loss(trainings: Sequence[Training], updates: int, baseline: str = BASELINE) -> float | None:
    """What the baseline's median seed reaches after so many updates; None where none got so far. Those that go on to it
    have no part in it."""
    own = [item for item in trainings if item.asked.label == baseline and item.asked.until_loss is None]
    losses = [loss_after(item, updates) for item in own]
    known = [loss for loss in losses if loss is not None]
    return statistics.median(known) if known else None


def updates_ratios(trainings: Sequence[Training], target: float, baseline: str = BASELINE) -> dict[str, Ratio]:
    """Of each arm that was trained, its updates until the loss over the baseline's, seed by seed. A training that
    failed or never got there counts with the most updates that it could have had."""
    blocks: dict[int, dict[str, list[float]]] = {}
    late = set()
    for item in trainings:
        reached = crossing(item, target)
        # Seeds that only the baseline was trained on are compared with nothing.
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
    """`is_bound_below`: the arm's values are at least these; `is_bound_above`: the baseline's are."""
    low = None if found.claim_high is None or is_bound_above else math.exp(-found.claim_high)
    high = None if found.claim_low is None or is_bound_below else math.exp(-found.claim_low)
    return Ratio(value=math.exp(-found.estimate), low=low, high=high)


def step_ratios(
    paces: Mapping[str, Contrast], tokens: Mapping[str, float], baseline: str = BASELINE
) -> dict[str, Ratio]:
    """Of each arm, the time of its update over the baseline's: `paces` are of the time a token, `tokens` how many an
    update has, or samples."""
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
    """What the bounds leave, never the estimate."""
    if reached == 0:
        return Worth.NEVER
    if time_ratio.high is not None and time_ratio.high < 1:
        return Worth.GAIN
    if time_ratio.low is not None and time_ratio.low > 1:
        return Worth.LOSS
    return Worth.UNKNOWN


def invalid(own: Sequence[Training], baseline: Sequence[Training]) -> str | None:
    """Why an arm's losses say nothing: it has been trained on what is held out, more than the baseline has by what is
    twice in the text."""
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
    """Everything about one arm. `step_time_s` is its own; `failure` says why it has no pace."""
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
    """Of a classifier."""
    names = dict.fromkeys(name for item in trainings for name in item.scores)
    return {name: statistics.median(item.scores[name] for item in trainings if name in item.scores) for name in names}


def tried_rates(tuned: Sequence[Training], label: str) -> dict[float, float | None]:
    """By rate, the loss at the end of the training that tried it; None where it failed."""
    return {
        item.asked.rate: item.held_out_losses[-1] if item.status is Status.OK and item.held_out_losses else None
        for item in tuned
        if item.asked.label == label
    }


def best_rate(tuned: Sequence[Training], label: str) -> float | None:
    """The rate whose training ended with the least loss."""
    known = {rate: loss for rate, loss in tried_rates(tuned, label).items() if loss is not None}
    return min(known, key=lambda rate: known[rate]) if known else None


ALIKE = 0.02
"""Of a loss: what trainings of two seeds may differ by."""


def careful_rate(tuned: Sequence[Training], label: str) -> float | None:
    """Of the rates whose training ended about as low as any, the least: at the highest that still learn, the loss of
    one training says little of the next."""
    known = {rate: loss for rate, loss in tried_rates(tuned, label).items() if loss is not None}
    return min((rate for rate, loss in known.items() if loss <= (1 + ALIKE) * min(known.values())), default=None)


STRIDE = math.sqrt(10)
"""Between learning rates that are tried first."""


def is_enclosed(tried: Mapping[float, float | None]) -> bool:
    """Whether rates on both sides of the best one were tried."""
    known = {rate: loss for rate, loss in tried.items() if loss is not None}
    return bool(known) and min(tried) < min(known, key=lambda rate: known[rate]) < max(tried)


def next_rate(tried: Mapping[float, float | None]) -> float:
    """The rate to try next: away from the best one where it has no neighbour on that side, first upwards, and between
    it and its better neighbour where it has both. A training that failed is worse than any."""
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
