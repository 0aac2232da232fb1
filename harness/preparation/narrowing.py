"""Which sizes of a family show from which size on a technique pays: chosen by the predicted times of their steps."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.plans import CPU_PARAMETERS
from bench.spec import BASELINE
from harness.preparation.pacing import Pace, is_sure
from harness.preparation.prepared import Entry, Prepared

BEARABLE_S = 2.0
"""Sizes with longer steps are left out."""

LEAST_SIZES = 3
"""Fewer sizes make no curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The predictions for one size: `speedups` by composition, None if unknown, and whether its steps are
    `bearable`."""

    speedups: Mapping[str, float | None]
    bearable: bool

    @property
    def sides(self) -> tuple[bool | None, ...]:
        """For each composition, whether it pays; None if that cannot be told."""
        return tuple(value > 1 if value and is_sure(value) else None for value in self.speedups.values())

    @property
    def distance(self) -> float:
        """How far the closest composition is from the point where it begins to pay."""
        return min((abs(math.log(value)) for value in self.speedups.values() if value), default=0.0)


def telling(sizes: Sequence[Size]) -> set[int]:
    """The positions of the sizes to measure, given sizes in ascending order: the smallest and the largest bearable one,
    both sides of each point where a composition begins to pay, and where that cannot be told; and enough to make a
    curve."""
    bearable = [place for place, size in enumerate(sizes) if size.bearable] or [0]
    kept = {bearable[0], bearable[-1]}
    kept |= {place for place in bearable if None in sizes[place].sides}
    for pair in itertools.pairwise(bearable):
        if sizes[pair[0]].sides != sizes[pair[1]].sides:
            kept |= set(pair)
    others = sorted(set(bearable) - kept, key=lambda place: sizes[place].distance)
    return kept | set(others[: max(0, LEAST_SIZES - len(kept))])


def narrowed(
    prepared: Prepared, paces: Mapping[tuple[str, str], Pace], begun: Collection[str] = ()
) -> tuple[Prepared, dict[str, Size]]:
    """The plan with only the telling sizes, if it narrows, and the sizes left out. Workloads that are `begun` stay."""
    if not prepared.plan.narrows:
        return prepared, {}
    sizes = [_size(prepared, entry, paces) for entry in prepared.entries]
    kept = telling(sizes)
    stays = [place in kept or entry.spec.name in begun for place, entry in enumerate(prepared.entries)]
    left_out = {
        entry.spec.name: size for entry, size, stay in zip(prepared.entries, sizes, stays, strict=True) if not stay
    }
    entries = tuple(itertools.compress(prepared.entries, stays))
    return dataclasses.replace(prepared, entries=entries), left_out


def _size(prepared: Prepared, entry: Entry, paces: Mapping[tuple[str, str], Pace]) -> Size:
    times_s = {
        trial.label: paces.get((entry.spec.name, trial.label), Pace()).step_time_s for trial in prepared.trials(entry)
    }
    own_s = times_s.get(BASELINE)
    speedups = {
        label: own_s / time_s if own_s and time_s else None for label, time_s in times_s.items() if label != BASELINE
    }
    if prepared.plan.device != "cpu":
        return Size(speedups=speedups, bearable=True)
    bearable = own_s <= BEARABLE_S if own_s else (entry.parameters or 0) <= CPU_PARAMETERS
    return Size(speedups=speedups, bearable=bearable)
