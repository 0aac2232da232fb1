"""How long a turn is, when an arm is warm, and which steps of a turn are cold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.spec import Protocol

STEADY_WITHIN = 0.05
"""Warm-up is over when the medians of the last three steps and of the three before differ by less than this share."""
STEADY_WINDOW = 3

COLD_SHARE = 0.005
"""Steps at the start of a turn are left out until the mean excess of the remaining steps over warm ones is no more than
this share."""

LONG_STEP_S = 0.5
"""A longer step spends less than COLD_SHARE of its time filling caches: it is counted, and a turn is one step."""


def is_steady(times_s: Sequence[float]) -> bool:
    """Whether the last steps are neither faster nor slower than those just before them."""
    if len(times_s) < 2 * STEADY_WINDOW:
        return False
    last = statistics.median(times_s[-STEADY_WINDOW:])
    before = statistics.median(times_s[-2 * STEADY_WINDOW : -STEADY_WINDOW])
    return abs(last / before - 1) < STEADY_WITHIN


def turn_steps(protocol: Protocol, step_s: float) -> int:
    """Counted steps of one turn of an arm."""
    return 1 if step_s > LONG_STEP_S else max(protocol.turn_steps, math.ceil(protocol.turn_s / step_s))


def round_count(protocol: Protocol, step_s: float) -> int:
    """How many turns fit into an arm's share of time: fewer for a slow arm, but never below the minimum."""
    fitting = round(protocol.rounds_s / (step_s * turn_steps(protocol, step_s)))
    return max(protocol.rounds_min, min(protocol.rounds, fitting))


def spread(count: int, total: int) -> set[int]:
    """`count` of the numbers below `total`, evenly spaced."""
    return {(2 * turn + 1) * total // (2 * count) for turn in range(count)}


def cold_steps(turns: Sequence[Sequence[float]]) -> int:
    """How many steps at the start of a turn are longer because the arm's caches are cold; at most half of a turn.

    The excess of each position in the turn is the median over turns of the step's ratio to the median of the turn's
    second half. Positions are left out from the first on until the mean excess of the rest of the turn is small.
    """
    size = min((len(times_s) for times_s in turns), default=0)
    if size < 2:
        return 0
    first = size // 2
    ratios = [[time_s / statistics.median(times_s[first:]) for time_s in times_s[:first]] for times_s in turns]
    excess = [statistics.median(column) - 1 for column in zip(*ratios, strict=True)]
    for lead in range(first):
        if sum(excess[lead:]) / (size - lead) <= COLD_SHARE:
            return lead
    return first
