"""How fast arms learn: held-out loss over time and over updates, and the time to a loss over the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from reports.charts import canvas
from reports.charts.forest import shortened
from reports.charts.scatter import spread
from reports.charts.svg import Tip, inline
from reports.wording import quantity
from reports.wording import worth as wording
from results.worth import Answer, Found, Worth

_WIDTH, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT, _BELOW = 420, 52, 10, 230, 250, 46
_LABEL_X, _LABEL_HEIGHT, _LABEL_CHARACTERS = 296, 14.5, 18
_CLIMB = 1.35
"""The highest loss that is drawn, over the loss to reach: before that all arms look alike."""

_BARS_WIDTH, _NAMES, _BARS, _ROW, _ROOM = 760, 200, 340, 30, 1.08
_MOST_RATIO = 4.0

COLOURS = {
    Worth.GAIN: canvas.FASTER,
    Worth.LOSS: canvas.SLOWER,
    Worth.NEVER: canvas.SLOWER,
    Worth.UNKNOWN: canvas.UNCLEAR,
    Worth.INVALID: canvas.MUTED,
}


@dataclass(frozen=True, slots=True)
class _Curve:
    """An arm's held-out losses, one row per seed, after each of `updates`; `step_s` is the time of one update."""

    label: str
    colour: str
    updates: np.ndarray
    losses: np.ndarray
    step_s: float | None


def losses(answer: Answer, name: str, *, over_time: bool) -> str | None:
    """Held-out loss over updates, or over the time that they take; None if there is nothing to draw."""
    curves = [curve for curve in _curves(answer) if not over_time or curve.step_s is not None]
    return _drawn(curves, answer, name, over_time) if curves and answer.target is not None else None


def _curves(answer: Answer) -> list[_Curve]:
    made = []
    arms = ([answer.baseline] if answer.baseline else []) + wording.ordered(answer)
    for item in arms:
        own = [training for training in answer.trainings if training.asked.label == item.techniques]
        whole = [training for training in own if training.updates]
        if not whole or item.verdict is Worth.INVALID:
            continue
        shortest = min(len(training.updates) for training in whole)
        made.append(
            _Curve(
                label=item.techniques,
                colour=canvas.INK if item.techniques == answer.base else COLOURS[item.verdict],
                updates=np.array(whole[0].updates[:shortest]),
                losses=np.array([training.held_out_losses[:shortest] for training in whole]),
                step_s=item.time_s / item.updates if item.time_s and item.updates else None,
            )
        )
    return made


@canvas.styled
def _drawn(curves: Sequence[_Curve], answer: Answer, name: str, over_time: bool) -> str:
    figure = canvas.sheet(_WIDTH, _TOP + _AREA_HEIGHT + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT)
    area.grid(color=canvas.HAIR, linewidth=0.6)
    area.set_axisbelow(True)
    target = answer.target or 0.0
    least = min(float(curve.losses.min()) for curve in curves)
    area.set_ylim(least - 0.04 * target, _CLIMB * target)
    area.axhline(target, color=canvas.ACCENT, linewidth=1)
    tips, ends = {}, []
    for index, curve in enumerate(curves):
        across = curve.updates * (curve.step_s or 0.0) if over_time else curve.updates
        middle = np.median(curve.losses, axis=0)
        area.fill_between(across, curve.losses.min(0), curve.losses.max(0), color=curve.colour, alpha=0.15, linewidth=0)
        area.plot(across, middle, color=curve.colour, gid=f"arm-{index}")
        tips[f"arm-{index}"] = Tip(text=f"{curve.label}: ends at {wording.loss(float(middle[-1]))}")
        ends.append((float(across[-1]), float(middle[-1])))
    area.set_xlim(0, max(x for x, _ in ends))
    area.xaxis.set_major_formatter(lambda value, _: quantity.duration(value, 2) if over_time else f"{value:g}")
    area.xaxis.set_major_locator(MaxNLocator(nbins=4))
    area.set_xlabel("time of the updates" if over_time else "updates")
    area.set_ylabel("loss on held-out samples")
    places = [canvas.place(figure, area, *end) for end in ends]
    order = sorted(range(len(curves)), key=lambda index: places[index][1])
    heights = spread([places[index][1] for index in order], _LABEL_HEIGHT, top=_TOP, bottom=_TOP + _AREA_HEIGHT)
    for index, label_y in zip(order, heights, strict=True):
        canvas.line(figure, [places[index], (_LABEL_X - 4, label_y)], color=canvas.HAIR, linewidth=0.8)
        canvas.write(figure, _LABEL_X, label_y, shortened(curves[index].label, _LABEL_CHARACTERS), size=canvas.SMALL)
    over = "time" if over_time else "updates"
    return inline(figure, name, f"Held-out loss over {over}, with the seeds as a band", tips)


def ratios(answer: Answer, name: str) -> str | None:
    """The time to the loss over the baseline's, with bounds; None if none is known."""
    shown = [item for item in wording.ordered(answer) if item.time_ratio.value is not None]
    return _bars(shown, name, answer.base) if shown else None


@canvas.styled
def _bars(shown: Sequence[Found], name: str, base: str) -> str:
    height = _ROW * len(shown)
    figure = canvas.sheet(_BARS_WIDTH, _TOP + height + _BELOW)
    area = canvas.axes(figure, _NAMES, _TOP, _BARS, height)
    area.set_ylim(len(shown) - 0.5, -0.5)
    area.set_yticks([])
    area.spines["left"].set_visible(False)
    values = [item.time_ratio.value or 1.0 for item in shown]
    reach = [bound for item in shown for bound in (item.time_ratio.low, item.time_ratio.high) if bound is not None]
    low = max(1 / _MOST_RATIO, min([1.0, *values, *reach])) / _ROOM
    high = min(_MOST_RATIO, max([1.0, *values, *reach])) * _ROOM
    canvas.log_axis(area, "x", (low, high), lambda tick: f"{tick:g}")
    area.axvline(1, color=canvas.MUTED, linewidth=1)
    tips = {}
    for index, item in enumerate(shown):
        colour, found = COLOURS[item.verdict], item.time_ratio
        # An unknown bound extends to the border of the chart.
        ends = [min(max(found.low or low, low), high), min(max(found.high or high, low), high)]
        area.plot(ends, [index, index], color=colour, linewidth=1.6, solid_capstyle="butt")
        area.plot(
            [min(max(found.value or 1.0, low), high)], [index], "o", color=colour, markersize=7, gid=f"arm-{index}"
        )
        tips[f"arm-{index}"] = Tip(text=f"{item.techniques}: {wording.ratio(found)}")
        middle = _TOP + _ROW * (index + 0.5)
        canvas.write(figure, _NAMES - 12, middle, shortened(item.techniques, 28), ha="right")
        canvas.write(figure, _NAMES + _BARS + 12, middle, wording.ratio(found), size=canvas.SMALL)
    area.set_xlabel(f"time to the loss over that of {base}: left is sooner")
    return inline(figure, name, "Time to the same loss, over the baseline's", tips, focusable=True)
