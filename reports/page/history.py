"""Paces over many runs: a chart for each arm, and the changes that are nominated in words."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bench.spec import BASELINE
from reports.charts import canvas
from reports.charts.chart import Chart
from reports.charts.svg import Tip, inline
from reports.page.html import asset, environment
from reports.wording import quantity
from results.history import Nomination, Point, Series, runs_needed

_WIDTH, _LEFT, _TOP, _AREA_WIDTH, _AREA_HEIGHT, _BELOW = 560, 56, 12, 488, 150, 46
_ROOM = 1.02
_MOST_DATES = 6


@canvas.styled
def chart(series: Series, name: str) -> Chart:
    """The time a token over the reference's, run by run, with a line before each run that is nominated."""
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
    for index, point in enumerate(points):
        if point.low is not None and point.high is not None:
            area.plot([index, index], [point.low, point.high], color=canvas.MUTED, linewidth=1.4)
        area.plot([index], [point.ratio], marker="o", markersize=5, color=canvas.INK)[0].set_gid(f"run-{index}")
    area.set_ylabel("time / reference's")
    tips = {f"run-{index}": Tip(text=_tip(series, index)) for index in range(len(points))}
    label = f"Time a token of {series.workload} {series.techniques} over the reference's, run by run"
    return Chart(svg=inline(figure, name, label, tips, focusable=True), note=" ".join(sentences(series)))


def _tip(series: Series, index: int) -> str:
    point = series.points[index]
    commit = f", commit {point.commit[:10]}" if point.commit else ""
    return f"{point.run_id}{commit}: {quantity.ratio_interval(point.ratio, point.low, point.high)}"


def answer(found: Sequence[Series]) -> list[str]:
    """What the runs say: the nominated changes, or in one sentence why there are none."""
    nominated = [sentence for series in found for sentence in sentences(series)]
    most, needed = max((len(series.points) for series in found), default=0), runs_needed(max(1, len(found)))
    if nominated:
        return nominated
    if most < needed:
        return [f"No change can be told from chance in {most} runs of {len(found)} arms: that takes {needed}."]
    return [f"No change of level in {most} runs is more than chance would explain."]


def sentences(series: Series) -> list[str]:
    """The nominated changes, each with the way to a verdict."""
    return [_sentence(series, nomination) for nomination in series.nominations]


def _sentence(series: Series, nomination: Nomination) -> str:
    before, after = series.points[nomination.index - 1], series.points[nomination.index]
    way = "slower" if nomination.factor > 1 else "faster"
    between = f"between runs {before.run_id} and {after.run_id}"
    change = f"{quantity.ratio(nomination.factor)} the time (p {nomination.p:.3f})"
    verdict = _way_to_a_verdict(series, before, after)
    return f"{series.workload} {series.techniques} may have become {way} {between}: {change}{verdict}."


def _way_to_a_verdict(series: Series, before: Point, after: Point) -> str:
    """The gate of the two commits, where the workload is code of theirs."""
    is_own_code = ".py:" in series.workload and " " not in series.workload
    if not (before.commit and after.commit and before.commit != after.commit and is_own_code):
        return ""
    technique = series.techniques
    techniques = "" if technique == BASELINE else f" --base-technique {technique} --head-technique {technique}"
    commits = f"--base {before.commit[:10]} --head {after.commit[:10]}"
    return f"; trainpace gate --model {series.workload} {commits}{techniques} can tell"


def render(reference: str, found: Sequence[Series]) -> str:
    """The whole page."""
    template = environment().get_template("history.html.j2")
    charts = [(series, chart(series, f"history-{index}")) for index, series in enumerate(found)]
    return template.render(
        style=Markup(asset("style.css")),
        reference=reference,
        answer=answer(found),
        runs=sorted({point.run_id for series in found for point in series.points}),
        figures=[(f"{series.workload}, {series.techniques}", Markup(made.svg), made.note) for series, made in charts],
    )
