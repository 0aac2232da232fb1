"""Intervals over repetitions. The repetition is the unit: steps within one process are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.80
SAME_WITHIN = 0.02
"""Bounds that contain 1 and lie within this share of it mean that a technique makes no difference."""
SIGNED_RANK_FROM = 6
"""From this many repetitions on the exact signed-rank test can reach 95 %: its smallest two-sided p is 2 / 2**n."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its interval. `smallest_effect` is the least true value, in either direction from 0, that this
    many repetitions of this spread would have detected with a probability of 80 %. The bounds are None for a single
    repetition, which has no spread."""

    estimate: float
    low: float | None
    high: float | None
    smallest_effect: float | None
    method: str


class Moments(NamedTuple):
    """What Welch's interval needs of a sample: its mean, the variance of that mean, and the number of values. The
    variance is NaN for one value. The fields may also be arrays, one entry per sample."""

    mean: float | Floats
    variance: float | Floats
    number: float | Floats


def moments(values: Sequence[float]) -> Moments:
    """The moments of one or more independent values."""
    number = len(values)
    variance = float(np.var(values, ddof=1)) / number if number > 1 else math.nan
    return Moments(float(np.mean(values)), variance, number)


def welch_half_width(one: Moments, other: Moments, confidence: float = CONFIDENCE) -> Floats:
    """Half the width of Welch's interval of the difference of two means (Welch 1947); NaN if a sample has one value."""
    variance = np.asarray(one.variance) + other.variance
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = variance**2 / sum(np.square(item.variance) / np.subtract(item.number, 1) for item in (one, other))
    # Identical values have no spread, whatever the degrees of freedom.
    quantile = special.stdtrit(np.where(variance == 0, 1.0, degrees), (1 + confidence) / 2)
    return np.asarray(quantile * np.sqrt(variance), dtype=np.float64)


def interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of the centre of `values`, one independent value per repetition.

    Below six values: the mean and Student's t interval. From six on: the Hodges-Lehmann estimate and the interval that
    inverts the exact Wilcoxon signed-rank test (Hollander & Wolfe, Nonparametric Statistical Methods, 3.2 and 3.3).
    Raises ValueError for no value or one that is not finite.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError(f"cannot take an interval of {list(values)}: give at least one finite value")
    effect = _smallest_effect(data)
    if data.size == 1:
        return Interval(estimate=float(data[0]), low=None, high=None, smallest_effect=None, method="one repetition")
    if data.size < SIGNED_RANK_FROM:
        mean, half = float(data.mean()), _t_half_width(data)
        method = f"mean, Student t, n={data.size}"
        return Interval(estimate=mean, low=mean - half, high=mean + half, smallest_effect=effect, method=method)
    walsh = _walsh_averages(data)
    cut = _signed_rank_cut(data.size)
    return Interval(
        estimate=float(np.median(walsh)),
        low=float(walsh[cut]),
        high=float(walsh[-1 - cut]),
        smallest_effect=effect,
        method=f"Hodges-Lehmann, exact signed-rank, n={data.size}",
    )


def _t_half_width(data: np.ndarray) -> float:
    quantile = special.stdtrit(data.size - 1, (1 + CONFIDENCE) / 2)
    return float(quantile * data.std(ddof=1) / math.sqrt(data.size))


def _smallest_effect(data: np.ndarray) -> float | None:
    """(t_0.975 + t_0.80) s / sqrt(n) with n - 1 degrees of freedom: the usual two-sided minimum detectable effect."""
    if data.size < 2:
        return None
    degrees = data.size - 1
    quantiles = special.stdtrit(degrees, (1 + CONFIDENCE) / 2) + special.stdtrit(degrees, POWER)
    return float(quantiles * data.std(ddof=1) / math.sqrt(data.size))


def _walsh_averages(data: np.ndarray) -> np.ndarray:
    """The n (n + 1) / 2 means of all pairs, each value paired with itself included, sorted."""
    first, second = np.triu_indices(data.size)
    return np.sort((data[first] + data[second]) / 2)


def _signed_rank_cut(size: int) -> int:
    """How many Walsh averages lie outside the interval on each side: the largest c with P(W <= c) <= 2.5 %.

    The exact null distribution of W counts the subsets of {1..n} by their sum.
    """
    counts = np.zeros(size * (size + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, size + 1):
        counts[rank:] = counts[rank:] + counts[:-rank]
    cumulative = np.cumsum(counts) / 2.0**size
    return int(np.searchsorted(cumulative, (1 - CONFIDENCE) / 2, side="right")) - 1
