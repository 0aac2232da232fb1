"""Speed-up against model size."""

from __future__ import annotations

from reports.charts import canvas
from reports.charts.chart import Chart
from reports.charts.forest import mark, tip
from reports.charts.svg import inline
from reports.wording import quantity, sentences
from results.crossover import Crossover

_WIDTH, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT, _BELOW = 460, 52, 12, 392, 220, 46
_ROOM = 1.15


@canvas.styled
def chart(found: Crossover, name: str) -> Chart:
    """The speed-up of each size with its interval, on logarithmic axes."""
    figure = canvas.sheet(_WIDTH, _TOP + _AREA_HEIGHT + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT)
    area.grid(color=canvas.HAIR, linewidth=0.6)
    area.set_axisbelow(True)
    xs, ys = list(found.parameters), [item.speedup or 1.0 for item in found.sizes]
    lows = [item.speedup_low or item.speedup or 1.0 for item in found.sizes]
    highs = [item.speedup_high or item.speedup or 1.0 for item in found.sizes]
    canvas.log_axis(area, "x", (min(xs) / 1.5, max(xs) * 1.5), lambda tick: quantity.count(tick, 2))
    bottom, top = max(min(lows), min([1.0, *ys]) / 2), min(max(highs), max([1.0, *ys]) * 2)
    canvas.log_axis(area, "y", (min(bottom, 1) / _ROOM, max(top, 1) * _ROOM), lambda tick: f"{tick:g}x")
    area.axhline(1, color=canvas.MUTED, linewidth=1)
    area.plot(xs, ys, color=canvas.HAIR, linewidth=1.2, zorder=1)
    for index, (x, y, low, high) in enumerate(zip(xs, ys, lows, highs, strict=True)):
        area.plot([x, x], [low, high], color=canvas.MUTED, linewidth=1.8, solid_capstyle="butt", zorder=2)
        mark(area, found.sizes[index], x, y, f"arm-{index}")
    area.set_xlabel("parameters, log scale")
    area.set_ylabel("speed-up, log scale")
    tips = {f"arm-{index}": tip(item, f"{item.workload}, ") for index, item in enumerate(found.sizes)}
    label = f"Speed-up of {found.techniques} over the sizes of {found.family}"
    return Chart(svg=inline(figure, name, label, tips, focusable=True), note=sentences.over_family(found))
