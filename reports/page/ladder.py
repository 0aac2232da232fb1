"""A tuning as a page: the ladder as a waterfall, and what was tried."""

from __future__ import annotations

from markupsafe import Markup

from reports.charts import waterfall
from reports.page.templates import asset, environment
from reports.wording import ladder as wording
from results.ladder import Ladder


def render(ladder: Ladder) -> str:
    """The whole page."""
    chart = waterfall.waterfall(ladder)
    return (
        environment()
        .get_template("ladder.html.j2")
        .render(
            style=Markup(asset("style.css")),
            model=ladder.workload["model"],
            answer=wording.answer(ladder),
            chart=chart,
            climb=wording.climb(ladder),
            sentences=wording.sentences(ladder),
            heats=[
                {
                    "title": f"Heat {number}: {wording.step(rung)}",
                    "before": wording.name(rung.before),
                    "rows": [(item.label, wording.outcome(item, rung)) for item in rung.tried],
                }
                for number, rung in enumerate(ladder.rungs, 1)
            ],
            elsewhere=wording.elsewhere(ladder),
            no_script=ladder.no_script,
            left_out=list(ladder.left_out.items()),
        )
    )
