"""Curves over updates: how long training takes in all, including the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.spec import BASELINE
from reports.charts import canvas
from reports.charts.chart import Chart, Section
from reports.charts.forest import MARKS, named, shortened, tip
from reports.charts.scatter import spread
from reports.charts.svg import inline
from reports.wording import quantity, view
from results.compare import Comparison, Verdict

_WIDTH, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT, _BELOW = 400, 52, 10, 190, 250, 46
_LABEL_X, _LABEL_HEIGHT, _LABEL_CHARACTERS = 260, 14.5, 22
_MOST_LABELS = 10
_UPDATES = np.geomspace(1, 1e5, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """An arm's total time over the baseline's, after each of _UPDATES."""

    comparison: Comparison
    ratios: np.ndarray

    @property
    def stands_out(self) -> float:
        """How far the curve is from the baseline at either end, on a logarithmic scale."""
        return max(abs(math.log(self.ratios[0])), abs(math.log(self.ratios[-1])))


@canvas.styled
def total_time(comparisons: Sequence[Comparison], name: str) -> Chart | None:
    """The time from starting an arm until so many updates, over the baseline's: below 1 it has paid."""
    curves, missing = _curves(comparisons)
    if not curves:
        return None
    figure = canvas.sheet(_WIDTH, _TOP + _AREA_HEIGHT + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT)
    area.grid(color=canvas.HAIR, linewidth=0.6)
    area.set_axisbelow(True)
    lowest, highest = (pick(1.0, *(pick(curve.ratios) for curve in curves)) for pick in (min, max))
    canvas.log_axis(area, "x", (_UPDATES[0], _UPDATES[-1] * 1.001), lambda tick: quantity.count(tick, 1), most=5)
    canvas.log_axis(area, "y", (lowest / 1.05, highest * 1.05), lambda tick: f"{tick:g}x")
    area.set_xlabel("updates, log scale")
    area.set_ylabel("total time over the baseline's")
    area.axhline(1, color=canvas.INK, linewidth=1)
    for index, curve in enumerate(curves):
        verdict = curve.comparison.verdict
        style = "--" if verdict is Verdict.UNCLEAR else "-"
        area.plot(_UPDATES, curve.ratios, color=MARKS[verdict][0], linestyle=style, gid=f"arm-{index}")
    labelled = sorted(curves, key=lambda curve: -curve.stands_out)[:_MOST_LABELS]
    ends = [canvas.place(figure, area, _UPDATES[-1], curve.ratios[-1]) for curve in labelled]
    heights = spread([y for _, y in ends], _LABEL_HEIGHT, top=_TOP, bottom=_TOP + _AREA_HEIGHT)
    for curve, (x, y), label_y in zip(labelled, ends, heights, strict=True):
        canvas.line(figure, [(x, y), (_LABEL_X - 4, label_y)], color=canvas.HAIR, linewidth=0.8)
        label = shortened(named(curve.comparison), _LABEL_CHARACTERS)
        canvas.write(figure, _LABEL_X, label_y, label, size=canvas.SMALL)
    tips = {f"arm-{index}": tip(curve.comparison) for index, curve in enumerate(curves)}
    few = f"Only the {_MOST_LABELS} farthest from the baseline are named." if len(curves) > _MOST_LABELS else ""
    label = f"Total time over updates on {comparisons[0].workload}"
    return Chart(svg=inline(figure, name, label, tips), note=" ".join(filter(None, (few, missing))))


def _curves(comparisons: Sequence[Comparison]) -> tuple[list[_Curve], str]:
    """The curves of the ranked arms, and in words the arms whose start is unknown."""
    baseline = next((item for item in comparisons if item.techniques == BASELINE), None)
    if baseline is None or baseline.start_s is None or baseline.step_time_s is None:
        return [], ""
    reference_s = baseline.start_s + _UPDATES * baseline.step_time_s
    curves, missing = [], []
    for item in comparisons:
        if not view.is_ranked(item) or item.speedup is None:
            continue
        if item.start_s is None:
            missing.append(item.techniques)
            continue
        total_s = item.start_s + _UPDATES * baseline.step_time_s / item.speedup
        curves.append(_Curve(comparison=item, ratios=total_s / reference_s))
    return curves, f"Not drawn, because the start is unknown: {quantity.several(missing, 99)}." if missing else ""


SECTIONS = (
    Section(
        name="total-time",
        rank=50,
        draw=lambda comparisons, _, __, name: [total_time(comparisons, name)],
        title="When it pays",
        words="Total time from starting an arm until it has trained on the tokens of so many updates of the baseline, "
        "over the baseline's time. Where a curve crosses 1, the arm's longer start is earned back. Dashed curves are "
        "not yet known to be faster or slower. Imports are not counted.",
        nothing="no ranked arm has a known start.",
    ),
)
