"""The pace of warm, contiguous training: what a record's turns come to, without the steps and rounds that do not count.

Everything that is shown as a step time, a throughput, a share of a step or a speed-up is made of these.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.record import Record

_MOST_SWEEPS, _STILL = 100, 1e-6
"""When the fit of rounds and arms ends: after so many sweeps, or when a sweep moves no arm by more than this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The counted steps of one turn: contiguous, in seconds, samples and tokens (None where samples are not text)."""

    round: int
    steps: int
    seconds: float
    samples: int
    tokens: int | None
    data_wait_s: float
    copy_s: float

    @property
    def step_time_s(self) -> float:
        return self.seconds / self.steps

    @property
    def log_pace(self) -> float:
        """ln of the seconds for each token, or sample where samples are not text."""
        return math.log(self.seconds / (self.tokens or self.samples))


def turns(record: Record) -> list[Turn]:
    """The counted turns of a record, in the order of their rounds; none where the whole repetition was disturbed."""
    return [_turn(record, index, counted) for index, counted in counted_steps(record)]


def counted_steps(record: Record) -> list[tuple[int, list[int]]]:
    """The rounds of the counted turns, each with where its counted steps are in the measurement's lists."""
    if record.disturbed:
        return []
    rounds = record.measurement.round_index
    found = []
    for index, entries in itertools.groupby(range(len(rounds)), key=rounds.__getitem__):
        whole = list(entries)
        # A turn of which nothing would be left keeps its last step.
        if index not in record.dropped_rounds:
            found.append((index, whole[min(record.lead_steps, len(whole) - 1) :]))
    return found


def _turn(record: Record, index: int, counted: Sequence[int]) -> Turn:
    measured = record.measurement

    def total(values: Sequence[float]) -> float:
        return sum(values[entry] for entry in counted) if values else 0.0

    return Turn(
        round=index,
        steps=len(counted),
        seconds=total(measured.round_step_times_s),
        samples=round(total(measured.round_samples)),
        tokens=round(total(measured.round_tokens)) if measured.round_tokens else None,
        data_wait_s=total(measured.round_data_wait_s),
        copy_s=total(measured.round_copy_s),
    )


def centre(values: Iterable[float]) -> float | None:
    """The Hodges-Lehmann estimate: the median of the means of all pairs, each value with itself included. It minds a
    few turns that something interrupted as little as a median does, and wastes less of the others. None for no value.
    """
    data = np.fromiter(values, dtype=float)
    if not data.size:
        return None
    first, second = _pairs(data.size)
    return float(np.median((data[first] + data[second]) / 2))


@functools.lru_cache(maxsize=256)
def _pairs(count: int) -> tuple[npt.NDArray[np.intp], ...]:
    return np.triu_indices(count)


def step_time_s(record: Record) -> float | None:
    """Seconds of one optimizer update: the centre of the turns' means."""
    return centre(turn.step_time_s for turn in turns(record))


def rate_per_s(record: Record, what: str) -> float | None:
    """`tokens` or `samples` a second: what a step handles, over the step time. None where they are not counted."""
    counted, step_s = turns(record), step_time_s(record)
    handled = [getattr(turn, what) for turn in counted]
    if step_s is None or None in handled:
        return None
    return float(sum(handled)) / sum(turn.steps for turn in counted) / step_s


def share(record: Record, what: str) -> float | None:
    """The part of the counted steps' time that went into `data_wait_s` or `copy_s`."""
    counted = turns(record)
    seconds = sum(turn.seconds for turn in counted)
    return sum(getattr(turn, what) for turn in counted) / seconds if seconds else None


def log_pace(record: Record) -> float | None:
    """The centre of the turns' ln(seconds a token)."""
    return centre(turn.log_pace for turn in turns(record))


def log_paces_together(records: Sequence[Record]) -> list[float | None]:
    """The pace of each of the arms that took their turns in the same rounds, without what befell a round as a whole.

    A drift of the machine reaches all arms of a round alike: pace = arm + round + chance. Rounds and arms are fitted
    in turn until nothing moves, rounds by medians, as in Tukey's median polish, and arms by their centres. A round in
    which one arm alone took a turn says nothing of differences. None for an arm without a turn beside another's.
    """
    paces = [{turn.round: turn.log_pace for turn in turns(record)} for record in records]
    partners = Counter(index for own in paces for index in own)
    shared = [{index: pace for index, pace in own.items() if partners[index] > 1} for own in paces]
    arms = [centre(own.values()) for own in shared]
    for _ in range(_MOST_SWEEPS):
        shifts = _shifts(shared, arms)
        before, arms = arms, [centre(pace - shifts[index] for index, pace in own.items()) for own in shared]
        moves = [abs(new - old) for new, old in zip(arms, before, strict=True) if new is not None and old is not None]
        if max(moves, default=0.0) < _STILL:
            break
    return arms


def _shifts(paces: Sequence[Mapping[int, float]], arms: Sequence[float | None]) -> dict[int, float]:
    """How far the arms of each round are from where they are over all rounds: the median."""
    deviations: dict[int, list[float]] = defaultdict(list)
    for own, arm in zip(paces, arms, strict=True):
        if arm is not None:
            for index, pace in own.items():
                deviations[index].append(pace - arm)
    return {index: statistics.median(values) for index, values in deviations.items()}
