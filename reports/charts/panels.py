"""Small multiples, one panel per arm: step times in the order of measurement, and utilisation over time.

Each arm is represented by one repetition, the one with the median step time.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from harness.record import Measurement, Record, Status
from reports.charts import canvas
from reports.charts.chart import Chart, Section
from reports.charts.forest import shortened
from reports.charts.svg import inline
from reports.wording import quantity
from reports.wording.columns import OUTCOME_WORDS
from reports.wording.view import arm_id, arm_name
from results.pace import step_time_s

_WIDTH, _LEFT, _GAP, _COLUMNS = 400, 50, 16, 2
_PANEL_HEIGHT, _PITCH, _TITLE = 46, 84, 18
_MOST_POINTS = 120
_LABEL_CHARACTERS = 25
_HEADROOM = 1.5
"""How far the scale extends beyond the steps after warm-up, as a factor. A first step that compiles is a hundred times
as long, and a scale that includes it would flatten the rest, so it leaves the panel and is written below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One panel: its title, its arm, the labels at the two ends of its axis, and the function that draws it."""

    title: str
    arm: str
    ends: tuple[str, str]
    draw: Callable[[Axes], None]


def representative(records: Sequence[Record]) -> list[Record]:
    """One record per arm: the one with the (lower) median step time of those that ended ok, or of all if none did."""
    arms: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        arms[record.techniques].append(record)
    chosen = []
    for found in arms.values():
        good = [record for record in found if record.status is Status.OK] or found
        good.sort(key=lambda record: step_time_s(record) or 0)
        chosen.append(good[(len(good) - 1) // 2])
    return chosen


@canvas.styled
def traces(records: Sequence[Record], name: str) -> Chart | None:
    """Every step of each arm on one logarithmic scale: warm-up, the sustained window, then the interleaved rounds."""
    shown = [record for record in representative(records) if _phases(record.measurement)]
    if not shown:
        return None
    low, high = _trace_limits([record.measurement for record in shown])

    def panel(record: Record) -> _Panel:
        count = sum(len(times) for times, _ in _phases(record.measurement))
        return _Panel(
            title=_title(record),
            arm=arm_id(record),
            ends=(_first_end(record.measurement, high), f"{count} steps"),
            draw=lambda area: _draw_trace(area, record.measurement, low, high),
        )

    label = f"Step times on {records[0].workload}, one panel per arm"
    return _grid([panel(record) for record in shown], name, label)


def _trace_limits(measured: Sequence[Measurement]) -> tuple[float, float]:
    """The limits of the scale: somewhat beyond the fastest and the slowest step after warm-up, over all arms."""
    steady = [time_s for item in measured for time_s in _after_warmup(item)]
    return min(steady) / _HEADROOM, max(steady) * _HEADROOM


def _after_warmup(measured: Measurement) -> list[float]:
    """The step times after warm-up; for an arm that did not get so far, the median of its warm-up steps."""
    times = [*measured.sustained_step_times_s, *measured.round_step_times_s]
    return times or [statistics.median(measured.warmup_step_times_s)]


def _first_end(measured: Measurement, high: float) -> str:
    """The label at the first step: its time if that is above the panel, else `1`."""
    first_s = _phases(measured)[0][0][0]
    return f"\N{UPWARDS ARROW} {quantity.duration(first_s, 2)}" if first_s > high else "1"


def _title(record: Record) -> str:
    ended = "" if record.status is Status.OK else f" ({OUTCOME_WORDS[record.status]})"
    return shortened(arm_name(record), _LABEL_CHARACTERS - len(ended) // 2) + ended


def _phases(measured: Measurement) -> list[tuple[list[float], str]]:
    """The phases that have any steps, with their colours."""
    phases = (
        (measured.warmup_step_times_s, canvas.MUTED),
        (measured.sustained_step_times_s, canvas.INK),
        (measured.round_step_times_s, canvas.ACCENT),
    )
    return [phase for phase in phases if phase[0]]


def _draw_trace(area: Axes, measured: Measurement, low: float, high: float) -> None:
    canvas.log_axis(area, "y", (low, high), lambda tick: quantity.duration(tick, 2), most=3)
    if measured.warmup_step_times_s:
        area.axvspan(0.5, len(measured.warmup_step_times_s) + 0.5, color=canvas.BAND, linewidth=0)
    begin = 1
    for times, colour in _phases(measured):
        points = thinned([(begin + index, time_s) for index, time_s in enumerate(times)], _MOST_POINTS)
        xs, ys = zip(*points, strict=True)
        marker = "." if len(points) == 1 else ""
        area.plot(xs, ys, color=colour, marker=marker, linewidth=1.1, solid_joinstyle="round")
        begin += len(times)
    area.set_xlim(0.5, begin - 0.5)


def thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points: the lowest and the highest of every stretch, so that outliers are kept."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / (most // 2))
    stretches = (points[start : start + size] for start in range(0, len(points), size))
    ends = ({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])} for part in stretches)
    return [point for part in ends for point in sorted(part)]


@canvas.styled
def utilisation(records: Sequence[Record], name: str) -> Chart | None:
    """CPU use by the arm and by other programs, and GPU utilisation, over the sustained window of each arm."""
    shown = [record for record in representative(records) if record.measurement.sample_t_s]
    if not shown:
        return None

    def panel(record: Record) -> _Panel:
        return _Panel(
            title=_title(record),
            arm=arm_id(record),
            ends=("0", quantity.duration(record.measurement.sample_t_s[-1], 2)),
            draw=lambda area: _draw_utilisation(area, record.measurement),
        )

    label = f"Utilisation on {records[0].workload}, one panel per arm"
    return _grid([panel(record) for record in shown], name, label)


def _draw_utilisation(area: Axes, measured: Measurement) -> None:
    series = (
        (measured.sample_cpu_pct, canvas.INK),
        (measured.sample_foreign_cpu_pct, canvas.SLOWER),
        (measured.sample_gpu_util_pct, canvas.ACCENT),
    )
    for values, colour in series:
        points = thinned(list(zip(measured.sample_t_s, values, strict=False)), _MOST_POINTS)
        if points:
            xs, ys = zip(*points, strict=True)
            area.plot(xs, ys, color=colour, marker="." if len(points) == 1 else "", linewidth=1.1, clip_on=False)
    area.set_ylim(0, 100)
    area.set_yticks([0, 50, 100], labels=["0 %", "", "100 %"])
    area.set_xlim(0, measured.sample_t_s[-1])


def _grid(panels: Sequence[_Panel], name: str, label: str) -> Chart:
    """The panels in columns, row by row; only the first column has tick labels."""
    rows = math.ceil(len(panels) / _COLUMNS)
    figure = canvas.sheet(_WIDTH, rows * _PITCH + 4)
    width = (_WIDTH - _LEFT - _GAP * (_COLUMNS - 1) - 2) / _COLUMNS
    for index, panel in enumerate(panels):
        row, column = divmod(index, _COLUMNS)
        left, top = _LEFT + column * (width + _GAP), row * _PITCH + _TITLE
        area = canvas.axes(figure, left, top, width, _PANEL_HEIGHT)
        # Invisible, but it can be pointed at.
        area.patch.set(facecolor=canvas.PAPER, alpha=0, gid=f"arm-{index}")
        panel.draw(area)
        if column:
            area.set_yticklabels([])
        area.set_xticks([])
        canvas.write(figure, left, top - 9, panel.title, size=canvas.SMALL)
        for end, x, side in zip(panel.ends, (left, left + width), ("left", "right"), strict=True):
            below = top + _PANEL_HEIGHT + 9
            canvas.write(figure, x, below, end, size=canvas.SMALL, color=canvas.MUTED, ha=side)
    arms = {f"arm-{index}": panel.arm for index, panel in enumerate(panels)}
    return Chart(svg=inline(figure, name, label, panels=arms))


SECTIONS = (
    Section(
        name="traces",
        rank=60,
        draw=lambda _, records, __, name: [traces(records, name)],
        title="Every step of one repetition",
        words="The repetition with the median step time of each arm, on one logarithmic scale for the workload. A "
        "first step above the scale is written below its panel.",
        lines={"band": "warm-up", "ink": "sustained window", "accent": "interleaved rounds"},
        nothing="no step was recorded.",
    ),
    Section(
        name="utilisation",
        rank=70,
        draw=lambda _, records, __, name: [utilisation(records, name)],
        title="Utilisation over time",
        words="The same repetitions, where telemetry was read. 100 % is all cores, or the whole GPU.",
        lines={"ink": "CPU, this arm", "slower": "CPU, other programs", "accent": "GPU"},
        nothing="the run kept no telemetry.",
    ),
)
