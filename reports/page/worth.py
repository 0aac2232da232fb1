"""What speed-ups are worth as a page."""

from __future__ import annotations

from markupsafe import Markup

from reports.charts import worth as charts
from reports.page.templates import asset, environment
from reports.wording import worth as wording
from results.worth import Answer


def render(answer: Answer) -> str:
    """The whole page."""
    return (
        environment()
        .get_template("worth.html.j2")
        .render(
            style=Markup(asset("style.css")),
            model=answer.workload["model"],
            headline=wording.headline(answer),
            sentences=[wording.sentence(item, answer) for item in wording.ordered(answer)],
            ratios=charts.ratios(answer, "ratios"),
            losses=list(
                filter(
                    None,
                    (
                        charts.losses(answer, "over-time", over_time=True),
                        charts.losses(answer, "over-updates", over_time=False),
                    ),
                )
            ),
            rows=wording.rows(answer),
            tuned=wording.tuned(answer),
            notes=wording.notes(answer),
        )
    )
