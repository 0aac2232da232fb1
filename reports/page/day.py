"""A day of training as a page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.learning.course import Point
from reports.charts import day as charts
from reports.page.templates import asset, environment
from reports.wording import day as wording
from results.day import Day


def render(day: Day, points: Sequence[Point] = ()) -> str:
    """The whole page."""
    return (
        environment()
        .get_template("day.html.j2")
        .render(
            style=Markup(asset("style.css")),
            model=day.chosen,
            headline=wording.headline(day),
            curve=charts.curve(day, points, "curve"),
            sizes=charts.sizes(day, "sizes"),
            rows=wording.rows(day),
            notes=wording.notes(day),
            texts=day.reached.texts if day.reached else (),
        )
    )
