"""The time of an arm over the reference's, run by run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.charts import canvas
from reports.charts.chart import Chart
from reports.charts.svg import Tip, inline
from reports.wording import quantity
from results.history import Point, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT, _BELOW = 560, 56, 12, 488, 150, 46
_ROOM = 1.02
_MOST_DATES = 6

MOST_POINTS = 120
"""Up to so many runs are drawn as points with tooltips; more are drawn as a line in a band."""


@canvas.styled
def chart(series: Series, name: str, note: str) -> Chart:
    """The time per token over the reference's, run by run, with a line before each nominated run."""
    figure = canvas.sheet(_WIDTH, _TOP + _AREA_HEIGHT + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT)
    area.grid(color=canvas.HAIR, linewidth=0.6, axis="y")
    area.set_axisbelow(True)
    points = series.points
    bounds = [bound for point in points for bound in (point.ratio, point.low, point.high) if bound]
    canvas.log_axis(area, "y", (min(bounds) / _ROOM, max(bounds) * _ROOM), lambda tick: f"{tick:g}x")
    area.set_xlim(-0.5, len(points) - 0.5)
    every = -(-len(points) // _MOST_DATES)
    area.set_xticks(range(0, len(points), every))
    area.set_xticklabels([point.started_at[:10] for point in points[::every]])
    for nomination in series.nominations:
        area.axvline(nomination.index - 0.5, color=canvas.SLOWER if nomination.factor > 1 else canvas.FASTER)
    area.set_ylabel("time / reference's")
    few = len(points) <= MOST_POINTS
    if not few:
        places = range(len(points))
        low, high = zip(*((point.low or point.ratio, point.high or point.ratio) for point in points), strict=True)
        area.fill_between(places, low, high, color=canvas.MUTED, alpha=0.4, linewidth=0)
        area.plot(places, [point.ratio for point in points], color=canvas.INK, linewidth=0.8)
    else:
        _draw_points(area, points)
    tips = {f"run-{index}": Tip(text=_tip(series, index)) for index in range(len(points))} if few else {}
    label = f"Time per token of {series.workload} {series.techniques} over the reference's, run by run"
    return Chart(svg=inline(figure, name, label, tips, focusable=True), note=note)


def _draw_points(area: Axes, points: Sequence[Point]) -> None:
    for index, point in enumerate(points):
        if point.low is not None and point.high is not None:
            area.plot([index, index], [point.low, point.high], color=canvas.MUTED, linewidth=1.4)
        area.plot([index], [point.ratio], marker="o", markersize=5, color=canvas.INK)[0].set_gid(f"run-{index}")


def _tip(series: Series, index: int) -> str:
    point = series.points[index]
    commit = f", commit {point.commit[:10]}" if point.commit else ""
    return f"{point.run_id}{commit}: {quantity.ratio_interval(point.ratio, point.low, point.high)}"
