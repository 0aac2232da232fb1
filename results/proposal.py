"""Whether a change is worth keeping, by the time in which the head reaches the loss of the base.

Trainings of both sides over the same seeds show how many updates that takes, and pairs of processes that step in turn
show how long an update takes. The logarithm of the ratio of the times is the sum of two means, each with its own
spread: Welch's test (1947) with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scipy import stats

from results.statistics import CONFIDENCE
from results.worth import Ratio

LEAST_GAIN = 0.01
"""A change that provably gains less is not worth keeping."""

HARM_LEVEL = 0.05
"""The level of the proof that it gains less; the ledger does not guard against discarding a good change."""


class Verdict(StrEnum):
    KEEP = "keep"
    DISCARD = "discard"
    UNKNOWN = "not known"
    INVALID = "invalid"


EXIT_CODES = {Verdict.KEEP: 0, Verdict.DISCARD: 1, Verdict.UNKNOWN: 3, Verdict.INVALID: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The judgement of one proposal. Ratios are head over base, below 1 is better, each with its own 95 % interval. `p`
    is the probability of this gain or a larger one if there is none; for `keep` it must not exceed `level`.
    `learns_alike`: losses and gradients equal the base's, so nothing was trained."""

    workload: str
    base: str
    head: str
    verdict: Verdict
    reasons: tuple[str, ...]
    p: float | None = None
    level: float
    time_ratio: Ratio = dataclasses.field(default_factory=Ratio)
    updates_ratio: Ratio = dataclasses.field(default_factory=Ratio)
    step_ratio: Ratio = dataclasses.field(default_factory=Ratio)
    target_loss: float | None = None
    base_loss: float | None = None
    head_loss: float | None = None
    learns_alike: bool = False
    first_seed: int
    seeds: int = 0
    repetitions: int = 0
    judged_before: int = 0
    seconds: float
    version: str

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def write(proposal: Proposal, file: Path) -> None:
    file.write_text(json.dumps(plain(proposal), indent=2) + "\n", encoding="utf-8")


def plain(proposal: Proposal) -> dict[str, object]:
    """The proposal as plain data for programs; unknown is null."""
    return dataclasses.asdict(proposal) | {"exit_code": proposal.exit_code}


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of independent values, the variance of that mean, and its degrees of freedom."""

    value: float
    variance: float
    degrees: float


EXACT = Mean(0.0, 0.0, math.inf)


def mean(values: Sequence[float]) -> Mean:
    """The mean of independent values. Raises ValueError for fewer than two, which have no spread."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread: give two or more")
    return Mean(statistics.fmean(values), statistics.variance(values) / len(values), len(values) - 1)


def total(*means: Mean) -> Mean:
    """The sum of independent means."""
    variance = sum(item.variance for item in means)
    parts = [item.variance**2 / item.degrees for item in means if item.variance and not math.isinf(item.degrees)]
    degrees = variance**2 / sum(parts) if parts else math.inf
    return Mean(sum(item.value for item in means), variance, degrees)


def ratio(found: Mean) -> Ratio:
    """The ratio for a mean of logarithms, with its 95 % interval."""
    off = math.sqrt(found.variance) * float(stats.t.ppf((1 + CONFIDENCE) / 2, found.degrees)) if found.variance else 0.0
    return Ratio(value=math.exp(found.value), low=math.exp(found.value - off), high=math.exp(found.value + off))


def p_gain(found: Mean) -> float:
    """The probability of a ratio this low or lower if there is no gain."""
    return _below(found, 0.0)


def p_no_gain(found: Mean, least: float = LEAST_GAIN) -> float:
    """The probability of a ratio this high or higher if the gain is `least`."""
    return 1 - _below(found, math.log1p(-least))


def _below(found: Mean, value: float) -> float:
    if not found.variance:
        return 0.0 if found.value < value else 1.0
    return float(stats.t.cdf((found.value - value) / math.sqrt(found.variance), found.degrees))


def verdict(found: Mean, level: float, *, is_late: bool) -> tuple[Verdict, str]:
    """The verdict of the tests, and the reason in words. `is_late`: a training of the head has not reached the loss, so
    the ratio is only a lower bound."""
    p = p_gain(found)
    if p <= level and not is_late:
        return Verdict.KEEP, f"p is {p:.2g}, below the level {level:.2g} of this test"
    if p_no_gain(found) <= HARM_LEVEL:
        return Verdict.DISCARD, f"it is proven to gain less than {LEAST_GAIN:.0%}"
    if p > level:
        return Verdict.UNKNOWN, f"p is {p:.2g}, and not below the level {level:.2g} of this test"
    return Verdict.UNKNOWN, "not every training of the head has reached the loss"
