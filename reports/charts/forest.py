"""The forest plot of speed-ups, and the marks that every chart of arms shares.

A chart function takes the comparisons of one workload and returns None if there is nothing to draw. Only ranked arms
and their baseline are drawn, not arms with unequal work or failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.charts import canvas
from reports.charts.chart import Chart, Section
from reports.charts.svg import Tip, inline
from reports.wording import quantity, view
from reports.wording.columns import speedup
from reports.wording.printable import printable
from results.compare import Comparison, Verdict
from results.statistics import SAME_WITHIN

MARKS = {
    Verdict.FASTER: (canvas.FASTER, "o", canvas.FASTER),
    Verdict.SLOWER: (canvas.SLOWER, "s", canvas.SLOWER),
    Verdict.SAME: (canvas.SAME, "D", canvas.SAME),
    Verdict.UNCLEAR: (canvas.UNCLEAR, "o", canvas.PAPER),
    None: (canvas.INK, "P", canvas.INK),
}
"""Edge colour, shape and fill by verdict, so that colour is never the only cue. None is the baseline."""

_ROOM = 2.0
"""How far beyond the estimates, as a factor, an axis extends for an interval; a longer one ends in an arrow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The layout of a forest plot, in pixels; `wrap_at` is in characters."""

    width: int
    row: int
    left: int
    right: int
    label_x: int
    label_rise: int
    wrap_at: int


_FOREST_TOP, _FOREST_BELOW = 6, 48
_WIDE = _Layout(width=560, row=27, left=180, right=416, label_x=0, label_rise=0, wrap_at=26)
_NARROW = _Layout(width=350, row=44, left=6, right=344, label_x=4, label_rise=16, wrap_at=999)


@canvas.styled
def forest(comparisons: Sequence[Comparison], name: str, *, narrow: bool = False) -> Chart | None:
    """The speed-up of every ranked arm with its interval, on a logarithmic axis, the fastest on top."""
    ranked = view.fastest_first(comparisons)
    if not ranked:
        return None
    layout = _NARROW if narrow else _WIDE
    figure = canvas.sheet(layout.width, _FOREST_TOP + layout.row * len(ranked) + _FOREST_BELOW)
    area = _forest_axes(figure, layout, ranked)
    for index, comparison in enumerate(ranked):
        middle = layout.row * (index + 0.5)
        _whisker(area, comparison, middle + layout.label_rise / 2)
        mark(area, comparison, comparison.speedup or 1, middle + layout.label_rise / 2, f"arm-{index}")
        y = _FOREST_TOP + middle - layout.label_rise / 2
        canvas.write(figure, layout.label_x, y, _wrapped(named(comparison), layout.wrap_at))
        interval = speedup(comparison)
        canvas.write(figure, layout.width - 2, y, interval, size=canvas.SMALL, ha="right", color=canvas.MUTED)
    tips = {f"arm-{index}": tip(comparison) for index, comparison in enumerate(ranked)}
    label = f"Speed-ups on {ranked[0].workload} with 95 % intervals"
    return Chart(svg=inline(figure, name, label, tips, focusable=True), note=_not_ranked(comparisons))


def _forest_axes(figure: Figure, layout: _Layout, ranked: Sequence[Comparison]) -> Axes:
    height = layout.row * len(ranked)
    area = canvas.axes(figure, layout.left, _FOREST_TOP, layout.right - layout.left, height)
    low, high = _speedup_limits(ranked)
    canvas.log_axis(area, "x", (low, high), lambda tick: f"{tick:g}x", most=7)
    area.set_ylim(height, 0)
    area.set_yticks([])
    area.spines["left"].set_visible(False)
    for index in range(len(ranked)):
        # Where labels are above their marks, nothing is drawn behind them.
        top, bottom = layout.row * (index + 0.5 * bool(layout.label_rise)), layout.row * (index + 1)
        area.fill_betweenx([top, bottom], 1 - SAME_WITHIN, 1 + SAME_WITHIN, color=canvas.BAND, linewidth=0)
        area.vlines(1, top, bottom, color=canvas.MUTED, linewidth=1)
    area.set_xlabel("slower  \N{LEFTWARDS ARROW}  speed-up over the baseline  \N{RIGHTWARDS ARROW}  faster", labelpad=7)
    if layout.label_rise:
        # Labels are above their marks, so rules between the rows show which belong together.
        rules = [layout.row * index for index in range(1, len(ranked))]
        area.hlines(rules, low, high, color=canvas.HAIR, linewidth=0.6)
    return area


def _speedup_limits(ranked: Sequence[Comparison]) -> tuple[float, float]:
    estimates = [item.speedup or 1 for item in ranked]
    low = min([1.0, *((item.claim_low or item.speedup or 1) for item in ranked)])
    high = max([1.0, *((item.claim_high or item.speedup or 1) for item in ranked)])
    low, high = max(low, min([1.0, *estimates]) / _ROOM), min(high, max([1.0, *estimates]) * _ROOM)
    margin = (high / low) ** 0.06 * 1.01
    return low / margin, high * margin


def _whisker(area: Axes, comparison: Comparison, y: float) -> None:
    """A line for the bounds that hold for all arms together, with a thicker part for the interval of this arm alone. An
    end outside the axes is drawn as an arrow at their border."""
    bounds = (comparison.claim_low, comparison.speedup_low, comparison.speedup_high, comparison.claim_high)
    outer_low, inner_low, inner_high, outer_high = bounds
    if outer_low is None or inner_low is None or inner_high is None or outer_high is None:
        return
    colour = MARKS[comparison.verdict][0]
    left, right = area.get_xlim()
    low, high = max(outer_low, left), min(outer_high, right)
    inner = [max(inner_low, left), min(inner_high, right)]
    area.plot([low, high], [y, y], color=colour, linewidth=1.0, solid_capstyle="butt")
    area.plot(inner, [y, y], color=colour, linewidth=2.6, solid_capstyle="butt")
    for end, asked, arrow in ((low, outer_low, "<"), (high, outer_high, ">")):
        marker = "|" if end == asked else arrow
        area.plot([end], [y], marker=marker, markersize=6, color=colour, clip_on=False)


def mark(area: Axes, comparison: Comparison, x: float, y: float, gid: str) -> None:
    """Draw the arm's marker; `svg.inline` finds it by `gid`."""
    edge, shape, filling = MARKS[comparison.verdict]
    area.plot(
        [x], [y], marker=shape, markersize=7, color=edge, markerfacecolor=filling, markeredgewidth=1.5, clip_on=False
    )[0].set_gid(gid)


def named(comparison: Comparison) -> str:
    """The arm's name, with a dagger, which the legend explains, if its training differs in more than rounding."""
    return view.arm_name(comparison) + (" \N{DAGGER}" if view.differs(comparison) else "")


def _wrapped(techniques: str, width: int) -> str:
    """A composition, split into two lines after the `+` nearest to the middle if it is longer than `width`."""
    label = printable(techniques)
    breaks = [index + 1 for index, character in enumerate(label) if character == "+"]
    if len(label) <= width or not breaks:
        return shortened(label, width)
    at = min(breaks, key=lambda index: abs(index - len(label) / 2))
    return f"{shortened(label[:at], width)}\n{shortened(label[at:], width)}"


def shortened(text: str, width: int) -> str:
    """At most `width` characters, with the middle left out, for both ends of a composition tell it apart."""
    text = printable(text)
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


def tip(comparison: Comparison, before: str = "") -> Tip:
    """The text that pointing at an arm's marker shows."""
    step = quantity.duration(comparison.step_time_s) if comparison.step_time_s else quantity.UNKNOWN
    shown = [view.qualified(comparison), f"step {step}"]
    if view.is_ranked(comparison):
        shown = [speedup(comparison), *shown, *view.notes(comparison, None)]
    return Tip(text=f"{before}{comparison.techniques}: {', '.join(shown)}", arm=view.arm_id(comparison))


def _not_ranked(comparisons: Sequence[Comparison]) -> str:
    left_out = [f"{item.techniques} ({item.outcome})" for item in view.excluded(comparisons)]
    return f"Not ranked: {quantity.several(left_out, 99)}." if left_out else ""


def _both(comparisons: Sequence[Comparison], _: object, __: object, name: str) -> Iterable[Chart | None]:
    """A wide and a narrow version: text scaled down to the width of a phone would be illegible."""
    yield forest(comparisons, f"{name}-wide")
    yield forest(comparisons, f"{name}-narrow", narrow=True)


FORESTS = Section(name="forests", draw=_both)
