"""Every technique against every workload: what helps where, at a glance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.spec import BASELINE
from harness.record import Status
from reports.wording import quantity
from reports.wording.view import arm_id, by_workload, differs, is_ranked, outcome
from results.compare import Comparison, Verdict

FULL_SHADE = math.log(2)
"""A tile has its full colour at half or twice the baseline's figure."""

OPEN_SHADE = 0.4
"""The share of the colour if the verdict is unclear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure that the tiles can show: `of` is how many times better than the baseline an arm is, None if unknown;
    `show` formats the figure."""

    name: str
    title: str
    caption: str
    of: Callable[[Comparison, Comparison], float | None]
    show: Callable[[Comparison, Comparison], str]


def _speedup(arm: Comparison, baseline: Comparison) -> float | None:
    return arm.speedup if is_ranked(arm) else None


def _fewer(field: str) -> Callable[[Comparison, Comparison], float | None]:
    """The baseline's figure over the arm's."""

    def of(arm: Comparison, baseline: Comparison) -> float | None:
        own, other = getattr(arm, field), getattr(baseline, field)
        return other / own if own and other and arm.status is Status.OK else None

    return of


def _times(field: str) -> Callable[[Comparison, Comparison], str]:
    """The arm's figure over the baseline's."""
    return lambda arm, baseline: quantity.ratio(getattr(arm, field) / getattr(baseline, field))


FIGURES = (
    Figure(
        name="speedup",
        title="Speed-up",
        caption="the baseline's time per token over the arm's: above 1 is faster",
        of=_speedup,
        show=lambda arm, _: quantity.ratio(arm.speedup or math.nan),
    ),
    Figure(
        name="memory",
        title="Peak memory",
        caption="the arm's over the baseline's: below 1 takes less",
        of=_fewer("peak_memory_bytes"),
        show=_times("peak_memory_bytes"),
    ),
    Figure(
        name="energy",
        title="Energy per token",
        caption="the arm's over the baseline's: below 1 takes less",
        of=_fewer("energy_j_per_token"),
        show=_times("energy_j_per_token"),
    ),
    Figure(
        name="start",
        title="First step",
        caption="including any compilation: what an arm costs to start",
        of=_fewer("first_step_s"),
        show=lambda arm, _: quantity.duration(arm.first_step_s or math.nan, 2),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A figure of one arm: its text, and from -1 to 1 how much worse or better than the baseline it is."""

    text: str
    shade: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One arm. `figures` are in the order of the matrix's; None is unknown."""

    arm: str
    workload: str
    outcome: str
    differs: str
    figures: tuple[Shown | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One composition of techniques on each workload; None where it was not tried."""

    techniques: str
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Compositions by workloads, the most helpful first. `figures` are those known for at least one arm."""

    workloads: tuple[str, ...]
    figures: tuple[Figure, ...]
    lines: tuple[Line, ...]


def matrix(comparisons: Sequence[Comparison]) -> Matrix:
    """The matrix of all arms except the baselines."""
    groups = by_workload(comparisons)
    baselines = {item.workload: item for item in comparisons if item.techniques == BASELINE}
    rivals = [item for item in comparisons if item.techniques != BASELINE and item.workload in baselines]
    figures = tuple(
        figure for figure in FIGURES if any(figure.of(item, baselines[item.workload]) is not None for item in rivals)
    )
    compositions: dict[str, dict[str, Comparison]] = {}
    for item in rivals:
        compositions.setdefault(item.techniques, {})[item.workload] = item
    return Matrix(
        workloads=tuple(groups),
        figures=figures,
        lines=tuple(
            Line(
                techniques=techniques,
                tiles=tuple(_tile(found[name], baselines[name], figures) if name in found else None for name in groups),
            )
            for techniques, found in sorted(compositions.items(), key=lambda entry: _usefulness(entry[1].values()))
        ),
    )


def _usefulness(arms: Iterable[Comparison]) -> tuple[bool, int, float]:
    """The sort key: by the number of workloads on which it is faster less those on which it is slower, then by the mean
    speed-up. What is ranked nowhere comes last."""
    ranked = [item for item in arms if is_ranked(item)]
    faster = sum(item.verdict is Verdict.FASTER for item in ranked)
    slower = sum(item.verdict is Verdict.SLOWER for item in ranked)
    mean = statistics.fmean(math.log(item.speedup or 1) for item in ranked) if ranked else 0.0
    return not ranked, slower - faster, -mean


def _tile(arm: Comparison, baseline: Comparison, figures: Sequence[Figure]) -> Tile:
    return Tile(
        arm=arm_id(arm),
        workload=arm.workload,
        outcome=outcome(arm),
        differs=differs(arm),
        figures=tuple(_shown(figure, arm, baseline) for figure in figures),
    )


def _shown(figure: Figure, arm: Comparison, baseline: Comparison) -> Shown | None:
    better = figure.of(arm, baseline)
    if better is None:
        return None
    shade = max(-1.0, min(1.0, math.log(better) / FULL_SHADE))
    is_open = figure.name == "speedup" and arm.verdict is Verdict.UNCLEAR
    return Shown(text=figure.show(arm, baseline), shade=round(shade * (OPEN_SHADE if is_open else 1), 2))
