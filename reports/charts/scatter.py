"""Charts of one figure against another: throughput against peak memory, first step against steady state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from bench.spec import BASELINE
from reports.charts import canvas
from reports.charts.chart import Chart, Section
from reports.charts.forest import mark, named, shortened, tip
from reports.charts.svg import Tip, inline
from reports.wording import quantity, view
from results.compare import Comparison

_WIDTH, _LEAST_HEIGHT, _LEFT, _TOP, _AREA_WIDTH, _BELOW = 400, 250, 52, 10, 190, 46
_LABEL_X, _LABEL_HEIGHT, _LABEL_CHARACTERS = 260, 14.5, 22
_MOST_LABELS = 8
"""The most names besides the baseline's: more could not be traced to their marks."""
_WIDE_SPAN = 8
"""Above this ratio of the largest memory to the smallest, a linear axis would crowd all but the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """An arm, with the two figures that the chart plots."""

    x: float
    y: float
    comparison: Comparison


@canvas.styled
def throughput(comparisons: Sequence[Comparison], name: str) -> Chart | None:
    """Tokens per second (samples if there are no tokens) against peak memory: up and to the left is better."""
    what = "tokens" if any(item.tokens_per_s for item in comparisons) else "samples"
    points, missing = _points(comparisons, "peak_memory_bytes", f"{what}_per_s")
    if not points:
        return None
    figure, area = _sheet(points)
    sizes, rates = [point.x for point in points], [point.y for point in points]
    _memory_axis(area, min(sizes), max(sizes))
    canvas.log_axis(area, "y", (min(rates) / 1.1, max(rates) * 1.1), lambda tick: quantity.count(tick, 2))
    area.set_ylabel(f"{what} a second, log scale")
    label = f"Throughput against peak memory on {comparisons[0].workload}"
    return Chart(
        svg=inline(figure, name, label, _draw(figure, area, points)), note=_note(points, missing), names=_names(points)
    )


@canvas.styled
def first_step(comparisons: Sequence[Comparison], name: str) -> Chart | None:
    """The first step, with any compilation in it, against the steady step: down and to the left is better."""
    points, missing = _points(comparisons, "step_time_s", "first_step_s")
    if not points:
        return None
    figure, area = _sheet(points)
    steady, first = [point.x for point in points], [point.y for point in points]
    canvas.log_axis(area, "x", (min(steady) / 1.1, max(steady) * 1.1), lambda tick: quantity.duration(tick, 2), most=3)
    canvas.log_axis(area, "y", (min(first) / 1.2, max(first) * 1.2), lambda tick: quantity.duration(tick, 2))
    area.set_xlabel("steady step, log scale")
    area.set_ylabel("first step, log scale")
    label = f"First step against steady step on {comparisons[0].workload}"
    return Chart(
        svg=inline(figure, name, label, _draw(figure, area, points)), note=_note(points, missing), names=_names(points)
    )


def _note(points: Sequence[_Point], missing: str) -> str:
    few = f"Only the {_MOST_LABELS} farthest from the baseline are named; the list below has all."
    return " ".join(filter(None, (few if len(points) > _MOST_LABELS + 1 else "", missing)))


def _names(points: Sequence[_Point]) -> dict[str, str]:
    """The names of all marks from the top down, if there is not room to label all of them; else empty."""
    if len(points) <= _MOST_LABELS + 1:
        return {}
    return {
        view.arm_id(point.comparison): named(point.comparison) for point in sorted(points, key=lambda item: -item.y)
    }


def _points(comparisons: Sequence[Comparison], x: str, y: str) -> tuple[list[_Point], str]:
    """The drawn arms whose figures are both known and positive, and in words those whose figures are not."""
    points, missing = [], []
    for item in comparisons:
        if not view.is_drawn(item):
            continue
        across, up = getattr(item, x), getattr(item, y)
        if across is None or up is None or across <= 0 or up <= 0:
            missing.append(item.techniques)
        else:
            points.append(_Point(x=across, y=up, comparison=item))
    return points, f"Not drawn, because a figure is unknown: {quantity.several(missing, 99)}." if missing else ""


def _sheet(points: Sequence[_Point]) -> tuple[Figure, Axes]:
    """A sheet and its axes, high enough for a column with one line per label to their right."""
    height = max(_LEAST_HEIGHT, _LABEL_HEIGHT * min(len(points), _MOST_LABELS + 1))
    figure = canvas.sheet(_WIDTH, _TOP + height + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, height)
    area.grid(color=canvas.HAIR, linewidth=0.6)
    area.set_axisbelow(True)
    return figure, area


def _memory_axis(area: Axes, least: float, most: float) -> None:
    if most > _WIDE_SPAN * least:
        canvas.log_axis(area, "x", (least / 1.2, most * 1.2), quantity.memory, most=3, unit=2.0**20)
        area.set_xlabel("peak memory, log scale")
        return
    margin = (most - least) * 0.08 or most * 0.1
    low, high = max(0.0, least - margin), most + margin
    unit = 2.0**30 if high >= 2.0**30 else 2.0**20
    area.set_xlabel("peak memory")
    area.set_xlim(low, high)
    ticks = [tick * unit for tick in MaxNLocator(nbins=3).tick_values(low / unit, high / unit)]
    shown = [tick for tick in ticks if low <= tick <= high]
    area.xaxis.set_major_locator(FixedLocator(shown))
    area.set_xticklabels([quantity.memory(tick) for tick in shown])


def _draw(figure: Figure, area: Axes, points: Sequence[_Point]) -> dict[str, Tip]:
    """Draw the points, with thin lines to the labels of those farthest from the baseline; the tooltips by gid."""
    places = [canvas.place(figure, area, point.x, point.y) for point in points]
    for index, point in enumerate(points):
        mark(area, point.comparison, point.x, point.y, f"arm-{index}")
    labelled = _farthest(points, places)
    wanted = [places[index][1] for index in labelled]
    heights = spread(wanted, _LABEL_HEIGHT, top=_TOP, bottom=_TOP + _area_height(figure))
    for index, label_y in zip(labelled, heights, strict=True):
        (x, y), end = places[index], _LABEL_X - 4
        canvas.line(figure, [(x + 5, y), (end - 12, label_y), (end, label_y)], color=canvas.HAIR, linewidth=0.8)
        label = shortened(named(points[index].comparison), _LABEL_CHARACTERS)
        canvas.write(figure, _LABEL_X, label_y, label, size=canvas.SMALL)
    return {f"arm-{index}": tip(point.comparison) for index, point in enumerate(points)}


def _farthest(points: Sequence[_Point], places: Sequence[tuple[float, float]]) -> list[int]:
    """The baseline and the points farthest from it on the sheet, as many as can be labelled."""
    labels = [point.comparison.techniques for point in points]
    origin = places[labels.index(BASELINE) if BASELINE in labels else 0]
    order = sorted(range(len(points)), key=lambda index: (labels[index] != BASELINE, -math.dist(places[index], origin)))
    return order[: _MOST_LABELS + 1]


def _area_height(figure: Figure) -> float:
    return canvas.height(figure) - _TOP - _BELOW


def spread(wanted: Sequence[float], gap: float, *, top: float, bottom: float) -> list[float]:
    """Heights as close as possible to the wanted ones, in the same order, at least `gap` apart and within bounds.

    Each is pushed down by the one above it; if that passes the bottom, they are pushed up again from there.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    heights = [min(max(wanted[index], top + gap / 2), bottom - gap / 2) for index in order]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    ceiling = bottom - gap / 2
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - gap
    return [height for _, height in sorted(zip(order, heights, strict=True))]


SECTIONS = (
    Section(
        name="throughput",
        rank=10,
        draw=lambda comparisons, _, __, name: [throughput(comparisons, name)],
        title="Throughput against peak memory",
        words="Up and to the left is better. Throughput is that of warm, contiguous steps.",
        marks=True,
        nothing="no ranked arm has both figures.",
    ),
    Section(
        name="first-step",
        rank=20,
        draw=lambda comparisons, _, __, name: [first_step(comparisons, name)],
        title="What the first step costs",
        words="The first step includes any compilation. A technique low on the axis costs nothing to start; one high "
        "up does not pay in a short run.",
        nothing="no ranked arm has both figures.",
    ),
)
