"""The gate's decision: from the log ratios of repetitions to regression, pass or inconclusive.

There is one value per repetition and workload: ln(head / base) of the time per token. Which repetitions count is
decided before, without looking at their times.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import optimize, stats

from results.statistics import POWER, interval

LOOKS: Mapping[int, float] = {8: 0.004, 12: 0.002, 16: 0.002, 24: 0.002}
"""Repetitions at which the gate looks, and the p up to which it then says regression: 1 % over all looks (Bonferroni).

The smallest p of the exact test of eight values is 1/256.
"""

PASS_P = 0.0125
"""The p up to which a look says pass: 5 % over the four looks."""

DRAWS = 4000
"""Samples drawn to find the smallest regression that is seen: they give a share of 80 % to within 0.6 %."""


class Verdict(StrEnum):
    """`invalid` is never decided from times: it means that the measurements are not fit for a decision."""

    REGRESSION = "regression"
    PASS = "pass"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """How much slower the head may be, as a share of the base's time.

    Up to `tolerance` does not matter: a regression is a proof of more. `harm` must not be missed: a pass is a proof of
    less. Raises ValueError unless 0 <= tolerance < harm.
    """

    tolerance: float = 0.01
    harm: float = 0.03

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < self.harm:
            raise ValueError(f"tolerance {self.tolerance} with harm {self.harm}: give 0 <= tolerance < harm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision for one workload. `ratio` is head over base, above 1 is slower, with its 95 % interval. `least_seen`
    is the smallest true ratio that this many repetitions of this spread would call a regression four times in five;
    None if they are too few to call anything one."""

    verdict: Verdict
    repetitions: int
    ratio: float
    ratio_low: float | None
    ratio_high: float | None
    p_regression: float
    p_pass: float
    least_seen: float | None


def decide(
    log_ratios: Mapping[str, Sequence[float]], margins: Mapping[str, Margins], *, family: int | None = None
) -> dict[str, Decision]:
    """The decision for each workload at a look. All have the same number of repetitions: one of LOOKS, or any other if
    the time has run out, and then the strictest threshold of all looks applies.

    A ratio that is proven to lie between the margins is a regression: a pass has to exclude harm. Regressions use
    Holm's procedure over the workloads. A pass needs no such correction, because the gate passes only if every workload
    does. `family` counts the workloads that no earlier look has called a regression, including those that have passed
    and are no longer looked at; None means all that are given. Raises ValueError for no values, or for workloads with
    unequal numbers of them.
    """
    counts = {len(values) for values in log_ratios.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"workloads have {sorted(counts)} repetitions: give all of them the same number, at least one")
    alpha = LOOKS.get(counts.pop(), min(LOOKS.values()))
    slower = {name: p_above(values, margins[name].tolerance) for name, values in log_ratios.items()}
    family = family or len(slower)
    regressed = holm(slower, alpha, family)
    return {
        name: _decision(values, margins[name], slower[name], regressed=name in regressed, alpha=alpha / family)
        for name, values in log_ratios.items()
    }


def _decision(
    values: Sequence[float], margins: Margins, p_regression: float, *, regressed: bool, alpha: float
) -> Decision:
    p_pass = p_below(values, margins.harm)
    verdict = Verdict.REGRESSION if regressed else Verdict.PASS if p_pass <= PASS_P else Verdict.INCONCLUSIVE
    found = interval(values)
    return Decision(
        verdict=verdict,
        repetitions=len(values),
        ratio=math.exp(found.estimate),
        ratio_low=None if found.low is None else math.exp(found.low),
        ratio_high=None if found.high is None else math.exp(found.high),
        p_regression=p_regression,
        p_pass=p_pass,
        least_seen=_least_seen(values, margins, alpha),
    )


def p_above(values: Sequence[float], share: float) -> float:
    """One-sided p of the exact signed-rank test against a centre of at most ln(1 + share)."""
    found = stats.wilcoxon(np.asarray(values) - math.log1p(share), alternative="greater", method="exact")
    return float(found.pvalue)


def p_below(values: Sequence[float], share: float) -> float:
    """One-sided p of the exact signed-rank test against a centre of at least ln(1 + share)."""
    found = stats.wilcoxon(np.asarray(values) - math.log1p(share), alternative="less", method="exact")
    return float(found.pvalue)


def holm(p_values: Mapping[str, float], alpha: float, family: int) -> set[str]:
    """The hypotheses rejected at a family-wise `alpha` (Holm 1979): from the smallest p up, each is compared with alpha
    over the number left in the family. Members of the family without a p here are not rejected."""
    rejected: set[str] = set()
    for name in sorted(p_values, key=lambda item: p_values[item]):
        if p_values[name] > alpha / (family - len(rejected)):
            break
        rejected.add(name)
    return rejected


def _least_seen(values: Sequence[float], margins: Margins, alpha: float) -> float | None:
    """(1 + tolerance) exp(k s), where s is the spread of the values; None if no regression can be seen at all."""
    factor = _spreads_seen(len(values), alpha)
    return None if factor is None else float((1 + margins.tolerance) * math.exp(factor * np.std(values, ddof=1)))


@functools.cache
def _spreads_seen(size: int, alpha: float) -> float | None:
    """How many standard deviations above the tolerance the centre of normal values must lie to be called a regression
    four times in five. It is found by simulation, because no formula gives the steps of the exact test. None if 2^-size
    is above alpha."""
    if 0.5**size > alpha:
        return None
    draws = np.random.default_rng(0).normal(size=(DRAWS, size))

    def missed(factor: float) -> float:
        p_values = stats.wilcoxon(draws + factor, alternative="greater", method="exact", axis=1).pvalue
        return float(POWER - np.mean(p_values <= alpha))

    return float(optimize.bisect(missed, 0.0, 10.0, xtol=0.01))
