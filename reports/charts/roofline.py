"""Why a step is as fast as it is: each kind of operator of each arm under the machine's roofline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from bench.spec import BASELINE
from harness.evidence.kinds import Kind
from harness.record import Machine, Record
from reports.charts import canvas
from reports.charts.chart import Chart, Section
from reports.charts.svg import Tip, inline
from reports.wording import quantity, view
from results.compare import Comparison
from results.roofline import Achieved, Roof, under_roof

_WIDTH, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT, _BELOW = 400, 62, 14, 326, 250, 46
_ROOM = 2.0

MOST_RIVALS = 3
"""The most rivals in the chart: more marks would be unreadable, and would not fit on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """One kind of operator of an arm."""

    comparison: Comparison
    seen: Achieved
    roof: Roof
    format: str


@canvas.styled
def roofline(comparisons: Sequence[Comparison], records: Sequence[Record], machine: Machine, name: str) -> Chart | None:
    """The baseline, with large marks, and the fastest of the arms with a profiled step."""
    points = _points(comparisons, records, machine)
    if not points:
        return None
    figure = canvas.sheet(_WIDTH, _TOP + _AREA_HEIGHT + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT)
    area.grid(color=canvas.HAIR, linewidth=0.6)
    area.set_axisbelow(True)
    intensities = [point.seen.flops_per_byte for point in points]
    rates = [point.seen.flops_per_s for point in points]
    formats = {point.format: point.roof.flops_per_s for point in points}
    across = (min(intensities) / _ROOM, max(intensities) * _ROOM)
    canvas.log_axis(area, "x", across, lambda tick: quantity.significant(tick, 1))
    up = (min(rates) / _ROOM, max(*rates, *formats.values()) * _ROOM)
    canvas.log_axis(area, "y", up, lambda tick: quantity.flops(tick, 1))
    area.set_xlabel("FLOP per byte read or written, log scale")
    _draw_roofs(area, machine, formats, across)
    tips = {}
    for index, point in enumerate(points):
        is_baseline = point.comparison.techniques == BASELINE
        area.plot(
            [point.seen.flops_per_byte],
            [point.seen.flops_per_s],
            marker="o",
            markersize=9 if is_baseline else 5,
            color=canvas.KINDS[list(Kind).index(point.seen.kind)],
            markeredgecolor=canvas.INK if is_baseline else canvas.PAPER,
            markeredgewidth=0.8,
            zorder=4 if is_baseline else 3,
            gid=f"arm-{index}",
        )
        tips[f"arm-{index}"] = Tip(text=_told(point), arm=view.arm_id(point.comparison))
    label = f"Operators under the roofline on {points[0].comparison.workload}"
    return Chart(svg=inline(figure, name, label, tips))


def _points(comparisons: Sequence[Comparison], records: Sequence[Record], machine: Machine) -> list[_Point]:
    profiled = {item.techniques: item for item in records if item.certificate and item.certificate.kind_flops}
    found = []
    baseline = [item for item in comparisons if item.techniques == BASELINE]
    rivals = [item for item in view.fastest_first(comparisons) if item.techniques in profiled]
    for item in [*baseline, *rivals[:MOST_RIVALS]]:
        record = profiled.get(item.techniques)
        if record is not None and item.step_time_s:
            found += [
                _Point(comparison=item, seen=seen, roof=roof, format=record.compute or "")
                for seen, roof in under_roof(record, machine, item.step_time_s)
            ]
    return found


def _draw_roofs(area: Axes, machine: Machine, formats: dict[str, float], across: tuple[float, float]) -> None:
    """Draw the peak of each number format, and the bandwidth of memory and caches up to the highest peak."""
    low, high = across
    highest = max(formats.values())
    for format_, peak in formats.items():
        area.plot([low, high], [peak, peak], color=canvas.MUTED, linewidth=1, zorder=2)
        _name(area, f"products of {format_}", (high, peak), (-3, 3), ha="right")
    for place, bytes_per_s in machine.memory_bytes_per_s.items():
        knee = highest / bytes_per_s
        area.plot([low, knee], [low * bytes_per_s, highest], color=canvas.MUTED, linewidth=1, zorder=2)
        middle = math.sqrt(max(low, area.get_ylim()[0] / bytes_per_s) * knee)
        # The label goes below the lowest line, and above the others.
        is_lowest = bytes_per_s == min(machine.memory_bytes_per_s.values())
        offset, side = ((6, -8), "left") if is_lowest else ((-6, 2), "right")
        _name(area, place, (middle, middle * bytes_per_s), offset, ha=side)


def _name(area: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    area.annotate(
        text, at, offset, textcoords="offset points", fontsize=canvas.SMALL, color=canvas.MUTED, zorder=5, **style
    )


def _told(point: _Point) -> str:
    seen = point.seen
    pace = f"{quantity.flops(seen.flops_per_s)} at {quantity.significant(seen.flops_per_byte)} FLOP per byte"
    took = f"{quantity.duration(seen.seconds)} of a step"
    return f"{point.comparison.techniques}, {seen.kind.value}: {took}, {pace}, {reached(point.roof, seen)}"


HIDDEN = (Kind.COMPILED, Kind.BETWEEN)
"""Kinds whose work is unknown, or that do none."""


def reached(roof: Roof, seen: Achieved) -> str:
    """The share of the machine's limit that was achieved, in words."""
    share = roof.share(seen)
    if share > 1:
        return "faster than memory: from the caches"
    return f"{quantity.percent(100 * share)} of the roof"


SECTIONS = (
    Section(
        name="roofline",
        rank=40,
        draw=lambda comparisons, records, machine, name: [roofline(comparisons, records, machine, name)],
        title="Why it is as fast as it is",
        words="Each mark is a kind of operator in a step: large marks are the baseline's, small ones those of the "
        "three fastest arms. A mark near a line is as fast as the machine can be: level lines show what products of "
        "large matrices reach here, rising lines what memory and the caches deliver. A mark far below the lines waits, "
        "or does too little at a time. Attention counts as if nothing were masked; operators other than products count "
        "one FLOP per element that they write.",
        lines={f"kind-{index}": kind.value for index, kind in enumerate(Kind) if kind not in HIDDEN},
        nothing="what the operators of a step did was not counted, which is done only in a replay on a CPU, with one "
        "rank and without compiled code; or no step time counts.",
    ),
)
