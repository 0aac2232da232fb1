"""The pace of each arm over many runs, and where it may have changed.

A machine changes from day to day, so every pace is relative to a pinned reference that was measured in the same run. A
nomination is a question, not a verdict: the runs lie apart in time. Only the gate, which measures both sides in turn,
can convict.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.spec import BASELINE
from results.statistics import Floats, Moments, welch_half_width
from results.summary import Summary

PINNED = "gpt2/nano"
"""The default reference: one of trainpace's own workloads, which no change of the user's code affects."""

LEAST_RUNS = 4
"""The fewest runs before and after a change: with three each, no order of the runs is rarer than one in ten."""

NOMINATED_P = 0.05

MOST_ORDERS = 10_000
"""The rank-sum test is exact while the runs before a change times those after it are at most this many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a series. `ratio` is the arm's time per token over the reference's, with Welch's 95 % interval, which
    is None where there is only one repetition and so no spread."""

    run_id: str
    started_at: str
    commit: str | None
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nomination:
    """From the run at `index` on, the arm takes `factor` times as long as before. `p` is that of the rank-sum test,
    times the number of places and series that were tried."""

    index: int
    factor: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One arm over the runs that have it, in chronological order."""

    workload: str
    techniques: str
    points: tuple[Point, ...]
    nominations: tuple[Nomination, ...]


def history(runs: Sequence[Summary], reference: str | None = None) -> tuple[str, list[Series]]:
    """The reference's name and a series for each other arm.

    Raises ValueError, naming the run, if a run has not measured the reference.
    """
    ordered = sorted(runs, key=lambda run: run.started_at)
    pinned = _pinned(ordered, reference)
    found: dict[tuple[str, str], list[Summary]] = defaultdict(list)
    for run in ordered:
        for workload, techniques in ((workload, label) for workload, own in run.paces.items() for label in own):
            if (workload, techniques) != (pinned, BASELINE):
                found[workload, techniques].append(run)
    return pinned, [_series(*arm, own, pinned, arms=len(found)) for arm, own in found.items()]


def _series(workload: str, techniques: str, runs: Sequence[Summary], pinned: str, *, arms: int) -> Series:
    own = _stacked([run.paces[workload][techniques] for run in runs])
    reference = _stacked([run.paces[pinned][BASELINE] for run in runs])
    logs = np.asarray(own.mean - reference.mean)
    half = welch_half_width(own, reference)
    points = [
        Point(
            run_id=run.run_id,
            started_at=run.started_at,
            commit=run.commit,
            ratio=ratio,
            low=None if math.isnan(lower) else lower,
            high=None if math.isnan(upper) else upper,
        )
        for run, ratio, lower, upper in zip(
            runs, *(np.exp(values).tolist() for values in (logs, logs - half, logs + half)), strict=True
        )
    ]
    nominations = tuple(nominate(logs, series=arms))
    return Series(workload=workload, techniques=techniques, points=tuple(points), nominations=nominations)


def _pinned(runs: Sequence[Summary], reference: str | None) -> str:
    measured = [{name for name, own in run.paces.items() if BASELINE in own} for run in runs]
    everywhere = sorted(set.intersection(*measured)) if measured else []
    wanted = reference or PINNED
    lacking = next((run for run, workloads in zip(runs, measured, strict=True) if wanted not in workloads), None)
    if lacking is not None:
        raise ValueError(_why_not(wanted, lacking, everywhere))
    return wanted


def _why_not(reference: str, run: Summary, everywhere: Sequence[str]) -> str:
    if reference in run.conditions.workloads:
        return (
            f"the reference {reference!r} was disturbed or failed in run {run.run_id!r}: leave that run out, or "
            "measure again"
        )
    others = f"give a --reference that is in every run ({', '.join(everywhere)}), or"
    return (
        f"reference {reference!r} was not measured in run {run.run_id!r}: "
        f"{others if everywhere else 'no workload is in every run, so'} add it to each run with another --model"
    )


def _stacked(samples: Sequence[Moments]) -> Moments:
    return Moments(*np.array(samples, dtype=float).T)


def nominate(logs: Sequence[float] | Floats, offset: int = 0, *, series: int = 1) -> list[Nomination]:
    """Where a series of logarithms changes its level: at the place that divides it best, if the difference is
    significant, and then at further places within both parts.

    The rank-sum test at that place decides, corrected for the number of places and of `series` that are examined
    together (Bonferroni). It assumes nothing about the distribution of the values.
    """
    values = np.asarray(logs, dtype=float)
    places = range(LEAST_RUNS, len(values) - LEAST_RUNS + 1)
    if not places:
        return []
    unlike = _unlikeness(values, places)
    best = np.flatnonzero(unlike == unlike.max())
    place = places[max(best, key=lambda index: abs(_shift(values, places[index])))]
    corrected = min(1.0, _rank_sum_p(values, place) * len(places) * series)
    if corrected > NOMINATED_P:
        return []
    found = Nomination(index=offset + place, factor=math.exp(_shift(values, place)), p=corrected)
    before = nominate(values[:place], offset, series=series)
    return [*before, found, *nominate(values[place:], offset + place, series=series)]


def runs_needed(series: int) -> int:
    """The fewest runs in which a change can be nominated at all if so many series are examined together."""
    return next(
        count
        for count in itertools.count(2 * LEAST_RUNS)
        if 2 / math.comb(count, count // 2) * (count - 2 * LEAST_RUNS + 1) * series <= NOMINATED_P
    )


def _unlikeness(values: Floats, places: range) -> Floats:
    """How much the ranks before and after each place differ: the distance of the rank sum from its expectation, in
    standard deviations, with continuity correction."""
    count, before = len(values), np.array(places)
    ranks = np.cumsum(_ranks(values))[before - 1]
    deviation = np.sqrt(before * (count - before) * (count + 1) / 12)
    found: Floats = (np.abs(ranks - before * (count + 1) / 2) - 0.5) / deviation
    return found


def _rank_sum_p(values: Floats, place: int) -> float:
    """The two-sided p of the rank-sum test at a place (Mann and Whitney 1947). It is exact, or, with too many orders to
    count, from the normal approximation, which is too large far out in the tail."""
    before, after = sorted((place, len(values) - place))
    if before * after > MOST_ORDERS:
        return float(min(1.0, 2 * special.ndtr(-_unlikeness(values, range(place, place + 1))[0])))
    larger = np.sum(_ranks(values)[:place]) - place * (place + 1) / 2
    smaller = math.ceil(min(larger, before * after - larger))
    return min(1.0, 2 * float(np.sum(_orders(before, after, smaller))) / math.comb(before + after, before))


def _orders(before: int, after: int, most: int) -> Floats:
    """How many orders of so many values before and after a place have 0, 1, ..., `most` inverted pairs: the
    coefficients of a Gaussian binomial. This avoids scipy.stats, which takes half a second to import."""
    counts = np.zeros(most + 1)
    counts[0] = 1
    for size in range(1, before + 1):
        # Multiply by 1 - x**(after + size), then divide by 1 - x**size.
        counts[after + size :] -= counts[: max(0, len(counts) - after - size)].copy()
        rows = np.pad(counts, (0, -len(counts) % size)).reshape(-1, size)
        counts = np.cumsum(rows, axis=0).ravel()[: most + 1]
    return counts


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; tied values share the mean of their ranks."""
    ordered = np.sort(values)
    found: Floats = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2
    return found


def _shift(values: Floats, place: int) -> float:
    return float(np.median(values[place:]) - np.median(values[:place]))
