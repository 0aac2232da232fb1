"""The sheet that charts are drawn on: matplotlib in the page's style, with pixel coordinates from the top left.

Colours are placeholders, hex values that nothing else uses. `svg.inline` replaces them by the page's CSS variables, so
that one drawing serves light and dark mode. pyplot is not used: a figure belongs to whoever draws it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

INK, MUTED, HAIR, PAPER, BAND, ACCENT = "#00000a", "#00000b", "#00000c", "#00000d", "#00000e", "#00000f"
FASTER, SLOWER, SAME, UNCLEAR = "#00001a", "#00001b", "#00001c", "#00001d"
KINDS = tuple(f"#00002{index:x}" for index in range(9))
"""The colours of the kinds of operators, in the order of harness.evidence.kinds."""
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    HAIR: "hair",
    PAPER: "paper",
    BAND: "band",
    ACCENT: "accent",
    FASTER: "faster",
    SLOWER: "slower",
    SAME: "same",
    UNCLEAR: "unclear",
    **{colour: f"kind-{index}" for index, colour in enumerate(KINDS)},
}
"""The CSS variable that each placeholder stands for."""

TEXT, SMALL = 11.5, 10.5
"""Font sizes in pixels at a sheet's natural width."""

_POINTS_PER_INCH = 72
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trainpace",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "text.color": INK,
    "axes.edgecolor": HAIR,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SMALL,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "xtick.color": HAIR,
    "ytick.color": HAIR,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "savefig.transparent": True,
    "lines.linewidth": 1.2,
}
_WIDE_SPAN = 3
_HALF_CAPITAL = 0.36
_ROUNDEST_FIRST = (1, 5, 2, 3, 7, 1.5)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def styled(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a drawing function in the page's style, without changing matplotlib's global settings."""

    @functools.wraps(draw)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return call


def sheet(width: float, height: float) -> Figure:
    """An empty figure of this size in pixels."""
    return Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH), dpi=_POINTS_PER_INCH)


def height(figure: Figure) -> float:
    """The height of a figure in pixels."""
    return float(figure.get_size_inches()[1] * _POINTS_PER_INCH)


def _fraction(figure: Figure, x: float, y: float) -> tuple[float, float]:
    width, height = figure.get_size_inches() * _POINTS_PER_INCH
    return x / width, 1 - y / height


def axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at this position, in pixels."""
    (x0, y0), (x1, y1) = _fraction(figure, left, top + height), _fraction(figure, left + width, top)
    return figure.add_axes((x0, y0, x1 - x0, y1 - y0))


def write(figure: Figure, x: float, y: float, text: str, *, size: float = TEXT, **style: Any) -> None:
    """Write text of one or more lines, centred vertically at `y`."""
    lines = text.split("\n")
    for index, part in enumerate(lines):
        # Aligned by the text baseline: centred by its ink, a word without descenders would sit lower than others.
        baseline = y + (index - (len(lines) - 1) / 2) * size * 1.1 + _HALF_CAPITAL * size
        figure.text(*_fraction(figure, x, baseline), part, va="baseline", fontsize=size, **style)


def line(figure: Figure, points: list[tuple[float, float]], **style: Any) -> None:
    """Draw a line through these points, behind all axes."""
    xs, ys = zip(*(_fraction(figure, *point) for point in points), strict=True)
    # Behind the axes, so that no line crosses a marker.
    figure.add_artist(Line2D(xs, ys, transform=figure.transFigure, zorder=-1, **style))


def place(figure: Figure, area: Axes, x: float, y: float) -> tuple[float, float]:
    """The position on the sheet of a point in data coordinates."""
    across, up = area.transData.transform((x, y))
    return float(across), height(figure) - float(up)


def log_axis(
    area: Axes, which: str, limits: tuple[float, float], form: Callable[[float], str], *, most: int = 6, unit: float = 1
) -> None:
    """Make one axis (`x` or `y`) logarithmic between these limits, with about `most` ticks, round in this unit."""
    getattr(area, f"set_{which}scale")("log")
    getattr(area, f"set_{which}lim")(limits)
    axis = area.xaxis if which == "x" else area.yaxis
    low, high = limits
    ticks = [tick * unit for tick in log_ticks(low / unit, high / unit, most)]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_ticklabels([form(tick) for tick in ticks])


def even_ticks(high: float, most: int = 4) -> list[float]:
    """Evenly spaced round values from 0 to at most `high`."""
    return [float(tick) for tick in MaxNLocator(nbins=most).tick_values(0, high) if 0 <= tick <= high]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values in a positive range, filled from the roundest on while there is room; even steps if it is narrow."""
    if high / low < _WIDE_SPAN:
        steps = MaxNLocator(nbins=min(most, 4)).tick_values(low, high)
        return [float(tick) for tick in steps if low <= tick <= high]
    ticks: list[float] = []
    apart = math.log(high / low) / (most + 1)
    for multiple in _ROUNDEST_FIRST:
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high))):
            tick = multiple * 10.0**power
            if low <= tick <= high and all(abs(math.log(tick / other)) >= apart for other in ticks):
                ticks.append(tick)
    return sorted(ticks)
