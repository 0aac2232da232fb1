"""The pace of warm, contiguous training, from the turns of a record without the steps and rounds that do not count.

Every step time, throughput, share of a step and speed-up that is shown comes from here.
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
"""The fit of rounds and arms ends after so many sweeps, or when a sweep moves no arm by this share or more."""


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
        """ln(seconds per token), or per sample where samples are not text."""
        return math.log(self.seconds / (self.tokens or self.samples))


def turns(record: Record) -> list[Turn]:
    """The counted turns of a record, in the order of their rounds; none if the whole repetition was disturbed."""
    return [_turn(record, index, counted) for index, counted in counted_steps(record)]


def counted_steps(record: Record) -> list[tuple[int, list[int]]]:
    """The rounds of the counted turns, each with the positions of its counted steps in the measurement's lists."""
    if record.disturbed:
        return []
    rounds = record.measurement.round_index
    found = []
    for index, entries in itertools.groupby(range(len(rounds)), key=rounds.__getitem__):
        whole = list(entries)
        # A turn that would have no step left keeps its last one.
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
    """The Hodges-Lehmann estimate: the median of the means of all pairs, each value paired with itself included. Like a
    median it is robust to a few interrupted turns, and it is more efficient. None for no value."""
    data = np.fromiter(values, dtype=float)
    if not data.size:
        return None
    first, second = _pairs(data.size)
    return float(np.median((data[first] + data[second]) / 2))


@functools.lru_cache(maxsize=256)
def _pairs(count: int) -> tuple[npt.NDArray[np.intp], ...]:
    return np.triu_indices(count)


def step_time_s(record: Record) -> float | None:
    """Seconds per optimizer update: the centre of the turns' means."""
    return centre(turn.step_time_s for turn in turns(record))


def rate_per_s(record: Record, what: str) -> float | None:
    """`tokens` or `samples` per second: those of a step, over the step time. None where they are not counted."""
    counted, step_s = turns(record), step_time_s(record)
    handled = [getattr(turn, what) for turn in counted]
    if step_s is None or None in handled:
        return None
    return float(sum(handled)) / sum(turn.steps for turn in counted) / step_s


def share(record: Record, what: str) -> float | None:
    """The share of the counted steps' time that `data_wait_s` or `copy_s` takes."""
    counted = turns(record)
    seconds = sum(turn.seconds for turn in counted)
    return sum(getattr(turn, what) for turn in counted) / seconds if seconds else None


def log_pace(record: Record) -> float | None:
    """The centre of the turns' ln(seconds per token)."""
    return centre(turn.log_pace for turn in turns(record))


def log_paces_together(records: Sequence[Record]) -> list[float | None]:
    """The pace of each arm that took turns in the same rounds, corrected for effects on a whole round.

    A drift of the machine affects all arms of a round alike: pace = arm + round + noise. Rounds and arms are fitted
    alternately until nothing moves: rounds by medians, as in Tukey's median polish, arms by their centres. A round in
    which only one arm took a turn says nothing about differences. None for an arm that shared no round with another.
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
    """For each round, the median deviation of its arms from their paces over all rounds."""
    deviations: dict[int, list[float]] = defaultdict(list)
    for own, arm in zip(paces, arms, strict=True):
        if arm is not None:
            for index, pace in own.items():
                deviations[index].append(pace - arm)
    return {index: statistics.median(values) for index, values in deviations.items()}
