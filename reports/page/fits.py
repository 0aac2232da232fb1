"""What fits where as a page: for each room a map of all workloads, and for each workload a map by batch."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.preparation.fitting import Fit
from reports.page.templates import asset, environment
from reports.wording import fits, quantity


def render(found: Sequence[Fit]) -> str:
    """The whole page."""
    rooms = [
        {
            "name": room.name,
            "free": quantity.memory(room.free_bytes),
            "map": fits.by_workload(each) if len(each) > 1 else None,
            "answers": [line for group in each for line in (fits.answer(group), *fits.pace(group))],
            "races": [command for group in each if (command := fits.race(group))],
            "batches": [fits.by_batch(group) for group in each],
        }
        for room, each in fits.groups(found)
    ]
    return (
        environment()
        .get_template("fits.html.j2")
        .render(style=Markup(asset("style.css")), rooms=rooms, checks=fits.checked(found))
    )
