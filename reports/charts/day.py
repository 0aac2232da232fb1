"""A day of training as charts: the loss expected of each size, and the loss curve of the one that was trained."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from harness.learning.course import Point
from reports.charts import canvas
from reports.charts.svg import Tip, inline
from reports.wording import day as wording
from reports.wording import quantity
from results.day import Day

_WIDTH, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT, _BELOW = 720, 60, 14, 620, 250, 46
_CLIMB = 1.6
"""The highest loss that is drawn, over the lowest one: before that all models look alike."""


def curve(day: Day, points: Sequence[Point], name: str) -> str | None:
    """The loss on held-out text over time, with the expected final loss; None if there are fewer than two points."""
    return _curve(day, points, name) if len(points) > 1 else None


@canvas.styled
def _curve(day: Day, points: Sequence[Point], name: str) -> str:
    figure = canvas.sheet(_WIDTH, _TOP + _AREA_HEIGHT + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT)
    area.grid(color=canvas.HAIR, linewidth=0.6)
    area.set_axisbelow(True)
    times_s = [point.elapsed_s for point in points]
    losses = [point.held_out_loss for point in points]
    trained = [(point.elapsed_s, point.train_loss) for point in points if point.train_loss is not None]
    expected = day.candidate.expected
    least = min([*losses, *([expected.low] if expected else [])])
    area.set_ylim(least - 0.03 * least, _CLIMB * least)
    area.set_xlim(0, 1.03 * max(times_s))
    if expected:
        area.axhspan(expected.low, expected.high, color=canvas.ACCENT, alpha=0.15, linewidth=0)
        area.axhline(expected.loss, color=canvas.ACCENT, linewidth=1, gid="expected")
    area.plot(*zip(*trained, strict=True), color=canvas.MUTED, linewidth=1, gid="train")
    area.plot(times_s, losses, color=canvas.INK, gid="held-out")
    area.xaxis.set_major_formatter(lambda value, _: quantity.duration(value, 2))
    area.xaxis.set_major_locator(MaxNLocator(nbins=6))
    area.set_xlabel("time")
    area.set_ylabel("loss")
    tips = {
        "held-out": Tip(text=f"on held-out text: ends at {losses[-1]:.4g}"),
        "train": Tip(text="on training text"),
    }
    if expected:
        tips["expected"] = Tip(text=f"expected: {wording.interval(expected)}")
    return inline(figure, name, "Loss over time, with the expected final loss as a band", tips)


def sizes(day: Day, name: str) -> str | None:
    """The loss expected of each size; None if it is unknown for all."""
    return _sizes(day, name) if any(item.expected for item in day.candidates) else None


@canvas.styled
def _sizes(day: Day, name: str) -> str:
    shown = [(item, item.expected) for item in day.candidates if item.expected]
    figure = canvas.sheet(_WIDTH, _TOP + _AREA_HEIGHT + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT)
    area.grid(color=canvas.HAIR, linewidth=0.6)
    area.set_axisbelow(True)
    area.set_xlim(-0.5, len(shown) - 0.5)
    area.set_xticks(range(len(shown)), [item.model for item, _ in shown])
    area.set_ylabel("loss on held-out text")
    tips = {}
    for index, (item, expected) in enumerate(shown):
        colour = canvas.ACCENT if item.model == day.chosen else canvas.MUTED
        area.plot([index, index], [expected.low, expected.high], color=colour, linewidth=1.6)
        area.plot([index], [expected.loss], "o", color=colour, markersize=7, gid=f"size-{index}")
        tips[f"size-{index}"] = Tip(text=f"{item.model}: expected at {wording.interval(expected)}")
        if day.reached and item.model == day.chosen:
            area.plot([index], [day.reached.loss], "D", color=canvas.INK, markersize=6, gid="reached")
            tips["reached"] = Tip(text=f"{item.model} reached {day.reached.loss:.4g}")
    return inline(figure, name, "The loss that each size is expected to reach, and the loss that was reached", tips)
