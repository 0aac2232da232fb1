"""How a recipe grew: each rung's factor on top of the earlier ones, and the whole as measured end to end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from bench.spec import BASELINE
from reports.charts import canvas
from reports.charts.svg import Tip, inline
from reports.wording import ladder as wording
from reports.wording import quantity
from results.ladder import Gain, Ladder

_WIDTH, _NAMES, _AREA_WIDTH, _ROW, _TOP, _BELOW = 760, 250, 400, 30, 12, 44
_BAR, _ROOM = 0.56, 0.06


@dataclass(frozen=True, slots=True)
class _Bar:
    """A row of the chart; a rung's bar begins where the one above ends."""

    name: str
    begins: float
    gain: Gain
    colour: str

    @property
    def ends(self) -> float:
        return self.begins * (self.gain.speedup or 1.0)


def waterfall(ladder: Ladder) -> str | None:
    """The chart as an `<svg>` element; None if nothing joined."""
    return _drawn(_bars(ladder), wording.measured(ladder)) if ladder.steps else None


def _bars(ladder: Ladder) -> list[_Bar]:
    gains = [rung.gain for rung in ladder.steps]
    paces = list(itertools.accumulate((gain.speedup or 1.0 for gain in gains), lambda pace, factor: pace * factor))
    rungs = [
        _Bar(wording.step(rung), begins, gain, canvas.FASTER)
        for rung, gain, begins in zip(ladder.steps, gains, [1.0, *paces], strict=False)
    ]
    whole = ladder.whole if ladder.techniques else Gain()
    end = [_Bar("the whole, on fresh repetitions", 1.0, whole, canvas.ACCENT)] if whole.speedup else []
    return [*rungs, *end]


@canvas.styled
def _drawn(bars: list[_Bar], what: str) -> str:
    height = _ROW * len(bars)
    figure = canvas.sheet(_WIDTH, _TOP + height + _BELOW)
    area = canvas.axes(figure, _NAMES, _TOP, _AREA_WIDTH, height)
    area.set_ylim(len(bars) - 0.5, -0.5)
    area.set_yticks([])
    area.spines["left"].set_visible(False)
    reach = [bar.begins * (bound or bar.gain.speedup or 1.0) for bar in bars for bound in (bar.gain.low, bar.gain.high)]
    reach += [1.0, *(bar.ends for bar in bars)]
    span = max(reach) - min(reach)
    area.set_xlim(min(reach) - _ROOM * span, max(reach) + _ROOM * span)
    area.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    area.axvline(1, color=canvas.MUTED, linewidth=1)
    tips = {}
    for index, bar in enumerate(bars):
        (drawn,) = area.barh(index, bar.ends - bar.begins, _BAR, left=bar.begins, color=bar.colour, gid=f"bar-{index}")
        drawn.set_gid(f"bar-{index}")
        tips[f"bar-{index}"] = Tip(text=f"{bar.name}: {wording.factor(bar.gain)}")
        if bar.gain.low is not None and bar.gain.high is not None:
            area.plot(
                [bar.begins * bar.gain.low, bar.begins * bar.gain.high],
                [index, index],
                color=canvas.INK,
                linewidth=1.4,
                solid_capstyle="butt",
            )
        if index + 1 < len(bars) and bars[index + 1].begins == bar.ends:
            area.plot([bar.ends, bar.ends], [index, index + 1], color=canvas.MUTED, linewidth=0.8)
        middle = _TOP + _ROW * (index + 0.5)
        canvas.write(figure, _NAMES - 12, middle, bar.name, ha="right")
        canvas.write(figure, _NAMES + _AREA_WIDTH + 12, middle, quantity.ratio(bar.gain.speedup or 1.0), ha="left")
    area.set_xlabel(f"{what} over that of {BASELINE}")
    return inline(figure, "ladder", f"Each rung's factor of the {what}, and the whole", tips, focusable=True)
