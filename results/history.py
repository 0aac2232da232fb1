"""The pace of each arm over many runs, and where it may have changed.

A machine is not the same from day to day, so every pace is taken relative to a pinned reference that was measured in
the same run. What is nominated here is a question, not a verdict: runs lie apart in time, and only the gate, which
measures both sides in turn, convicts.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.spec import BASELINE
from harness.record import Record
from results.runs import repetition_paces
from results.statistics import CONFIDENCE

PINNED = "gpt2/nano"
"""The reference unless the user names another: a workload of trainpace's own, which no change of the user's touches."""

LEAST_RUNS = 4
"""Before and after a change: with three each no order of the runs is rarer than one in ten."""

NOMINATED_P = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The records of one run, and the commit that its machine's description names."""

    records: Sequence[Record]
    commit: str | None

    @property
    def run_id(self) -> str:
        return self.records[0].run_id

    @property
    def started_at(self) -> str:
        return min(record.started_at for record in self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a series: `ratio` is the arm's time a token over the reference's, with Welch's 95 % interval, which
    is None where one repetition gives no spread."""

    run_id: str
    started_at: str
    commit: str | None
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nomination:
    """From the run at `index` on, the arm takes `factor` times the time that it took before, since the last nomination.
    `p` is of the exact rank-sum test, times the number of places and series that were tried."""

    index: int
    factor: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One arm over the runs that have it, in the order of time."""

    workload: str
    techniques: str
    points: tuple[Point, ...]
    nominations: tuple[Nomination, ...]


def history(runs: Sequence[Run], reference: str | None = None) -> tuple[str, list[Series]]:
    """The reference's name and a series for each other arm.

    Raises ValueError, naming the run, where the reference was not measured.
    """
    ordered = sorted(runs, key=lambda run: run.started_at)
    pinned = _pinned(ordered, reference)
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for run in ordered:
        paces = _paces(run.records)
        for (workload, techniques), logs in paces.items():
            if (workload, techniques) != (pinned, BASELINE):
                points[workload, techniques].append(_point(run, logs, paces[pinned, BASELINE]))
    return pinned, [
        Series(
            workload=workload,
            techniques=techniques,
            points=tuple(found),
            nominations=tuple(nominate([math.log(point.ratio) for point in found], series=len(points))),
        )
        for (workload, techniques), found in points.items()
    ]


def _pinned(runs: Sequence[Run], reference: str | None) -> str:
    measured = {run.run_id: {workload for workload, label in _paces(run.records) if label == BASELINE} for run in runs}
    everywhere = sorted(set.intersection(*measured.values())) if measured else []
    wanted = reference or PINNED
    for run_id, workloads in measured.items():
        if wanted not in workloads:
            known = ", ".join(everywhere) or "none"
            raise ValueError(
                f"reference {wanted!r} was not measured in run {run_id!r}: give --reference with one that is in every "
                f"run ({known}), and add it to each run with another --model"
            )
    return wanted


def _paces(records: Sequence[Record]) -> Mapping[tuple[str, str], list[float]]:
    """By arm, the median logarithm of the time a token of each repetition that ended well."""
    arms = dict.fromkeys((record.workload, record.techniques) for record in records)
    found = {arm: repetition_paces(records, *arm) for arm in arms}
    return {arm: logs for arm, logs in found.items() if logs}


def _point(run: Run, logs: Sequence[float], reference: Sequence[float]) -> Point:
    low = high = None
    if min(len(logs), len(reference)) > 1:
        bounds = stats.ttest_ind(logs, reference, equal_var=False).confidence_interval(CONFIDENCE)
        low, high = math.exp(bounds.low), math.exp(bounds.high)
    ratio = math.exp(statistics.fmean(logs) - statistics.fmean(reference))
    return Point(run_id=run.run_id, started_at=run.started_at, commit=run.commit, ratio=ratio, low=low, high=high)


def nominate(logs: Sequence[float], offset: int = 0, *, series: int = 1) -> list[Nomination]:
    """Where a series of logarithms changes its level: the place that divides it best, if by more than chance, and then
    the same within both parts.

    By the exact rank-sum test at every place, corrected for their number and that of the `series` that are looked at
    together (Bonferroni); values need no shape.
    """
    places = range(LEAST_RUNS, len(logs) - LEAST_RUNS + 1)
    tried = [(_rank_sum_p(logs[:place], logs[place:]), -abs(_shift(logs, place)), place) for place in places]
    if not tried:
        return []
    p, _, place = min(tried)
    corrected = min(1.0, p * len(tried) * series)
    if corrected > NOMINATED_P:
        return []
    found = Nomination(index=offset + place, factor=math.exp(_shift(logs, place)), p=corrected)
    before, after = nominate(logs[:place], offset, series=series), nominate(logs[place:], offset + place, series=series)
    return [*before, found, *after]


def runs_needed(series: int) -> int:
    """The fewest runs in which a change could be nominated at all, where so many series are looked at together."""
    return next(
        count
        for count in itertools.count(2 * LEAST_RUNS)
        if 2 / math.comb(count, count // 2) * (count - 2 * LEAST_RUNS + 1) * series <= NOMINATED_P
    )


def _rank_sum_p(before: Sequence[float], after: Sequence[float]) -> float:
    return float(stats.mannwhitneyu(before, after, alternative="two-sided", method="exact").pvalue)


def _shift(logs: Sequence[float], place: int) -> float:
    return float(np.median(logs[place:]) - np.median(logs[:place]))
