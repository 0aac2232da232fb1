"""Paces over many runs: a chart for each arm, and the nominated changes in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from bench.spec import BASELINE
from reports.page.templates import asset, environment
from reports.wording import quantity
from results.history import Nomination, Point, Series, runs_needed

if TYPE_CHECKING:
    from reports.charts.chart import Chart

MOST_CHARTS = 12
"""The most charts. With more arms, only those with a nominated change get a chart; the table has all."""

_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_POINTS = 160, 24, 160


def answer(found: Sequence[Series]) -> list[str]:
    """The nominated changes, or one sentence on why there are none."""
    nominated = [sentence for series in found for sentence in sentences(series)]
    most, needed = max((len(series.points) for series in found), default=0), runs_needed(max(1, len(found)))
    if nominated:
        return nominated
    if most < needed:
        return [f"{most} runs of {len(found)} arms are too few to tell a change from chance: that takes {needed}."]
    return [f"No change of level in {most} runs is more than chance would explain."]


def sentences(series: Series) -> list[str]:
    """The nominated changes, each with the command that gives a verdict."""
    return [_sentence(series, nomination) for nomination in series.nominations]


def _sentence(series: Series, nomination: Nomination) -> str:
    before, after = series.points[nomination.index - 1], series.points[nomination.index]
    way = "slower" if nomination.factor > 1 else "faster"
    between = f"between runs {before.run_id} and {after.run_id}"
    change = f"{quantity.ratio(nomination.factor)} the time (p {nomination.p:.3f})"
    verdict = _way_to_a_verdict(series, before, after)
    return f"{series.workload} {series.techniques} may have become {way} {between}: {change}{verdict}."


def _way_to_a_verdict(series: Series, before: Point, after: Point) -> str:
    """The gate command for the two commits, if the workload is the user's own code."""
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
    drawn = sorted(found, key=lambda series: min((item.p for item in series.nominations), default=1.0))[:MOST_CHARTS]
    if len(found) > MOST_CHARTS:
        drawn = [series for series in drawn if series.nominations]
    charts = _charts(drawn) if drawn else []
    return template.render(
        style=Markup(asset("style.css")),
        reference=reference,
        answer=answer(found),
        runs=sorted({point.run_id for series in found for point in series.points}),
        rows=[_row(series) for series in found] if len(found) > MOST_CHARTS else [],
        figures=[(f"{series.workload}, {series.techniques}", Markup(made.svg), made.note) for series, made in charts],
    )


def _charts(drawn: Sequence[Series]) -> list[tuple[Series, Chart]]:
    from reports.charts.history import chart  # A page without charts need not import matplotlib.

    return [
        (series, chart(series, f"history-{index}", " ".join(sentences(series)))) for index, series in enumerate(drawn)
    ]


def _row(series: Series) -> dict[str, object]:
    """An arm's row of the table: its latest level, and its changes."""
    since = series.nominations[-1].index if series.nominations else 0
    return {
        "workload": series.workload,
        "techniques": series.techniques,
        "runs": len(series.points),
        "level": quantity.ratio(statistics.median(point.ratio for point in series.points[since:])),
        "change": ", ".join(quantity.ratio(item.factor) for item in series.nominations),
        "spark": _spark([point.ratio for point in series.points]),
    }


def _spark(ratios: Sequence[float]) -> Markup:
    """A sparkline of the runs; if there are too many to see, each point is the median of several."""
    every = -(-len(ratios) // _SPARK_POINTS)
    logs = [math.log(statistics.median(ratios[start : start + every])) for start in range(0, len(ratios), every)]
    low, high = min(logs), max(logs)
    across, up = _SPARK_WIDTH / max(1, len(logs) - 1), (_SPARK_HEIGHT - 2) / (high - low or 1)
    points = " ".join(
        f"{index * across:.0f},{_SPARK_HEIGHT - 1 - (value - low) * up:.1f}" for index, value in enumerate(logs)
    )
    return Markup(
        f'<svg viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" width="{_SPARK_WIDTH}" height="{_SPARK_HEIGHT}" '
        f'aria-hidden="true"><polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )
