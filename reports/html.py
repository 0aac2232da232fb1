"""The report: one HTML file that needs nothing but a browser. Charts, styles, script and data are all inside it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench.spec import Plan
from harness.record import Machine, Record
from reports import charts, export, facts, panels, quantity, scatter, sentences, sizes, view
from results.compare import SAME_WITHIN, Comparison
from results.crossover import crossovers
from results.idle import ErrorRate

PAGE_BYTES = 1_950_000
"""What a page may weigh. Charts are drawn in order of importance as long as there is room beside the table."""

Comparisons = Sequence[Comparison]
Records = Sequence[Record]
Draw = Callable[[Comparisons, Records, str], Iterable[charts.Chart | None]]


def _forests(comparisons: Comparisons, _: Records, name: str) -> Iterable[charts.Chart | None]:
    """Two of each: text scaled down to a telephone's width could not be read."""
    yield charts.forest(comparisons, f"{name}-wide")
    yield charts.forest(comparisons, f"{name}-narrow", narrow=True)


KINDS: dict[str, Draw] = {
    "forests": _forests,
    "throughput": lambda comparisons, _, name: [scatter.throughput(comparisons, name)],
    "first_step": lambda comparisons, _, name: [scatter.first_step(comparisons, name)],
    "traces": lambda _, records, name: [panels.traces(records, name)],
    "utilisation": lambda _, records, name: [panels.utilisation(records, name)],
}
"""The kinds of charts, the most important first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart of one workload, ready for the page, in one version or in a wide and a narrow one."""

    workload: str
    svgs: tuple[Markup, ...]
    note: str


def render(
    comparisons: Comparisons,
    records: Records,
    machine: Machine,
    plan: Plan,
    *,
    captions: Mapping[str, str] | None = None,
    known: ErrorRate | None = None,
) -> str:
    """The whole page. `captions` has the one-line caption of each technique, by name; `known` says how often verdicts
    are wrong on the machine."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["breakable"] = _breakable
    template = environment.from_string(_template())
    page = _texts(comparisons, records, machine, plan, captions or {}) | {"known": sentences.error_rate(known)}
    bare = template.render(page, omitted=[], sizes={}, **{kind: {} for kind in KINDS})
    return template.render(page, **_drawn(comparisons, records, PAGE_BYTES - len(bare.encode())))


def _breakable(name: str) -> Markup:
    """The name of a composition, which may go on in the next line after a joint."""
    return Markup("<wbr>").join(re.split(r"(?<=[_+])", name))


def _template() -> str:
    # Indentation would be a fifth of the page.
    return re.sub(r"\n\s+", "\n", _asset("template.html.j2"))


def _asset(name: str) -> str:
    return files("reports").joinpath(name).read_text(encoding="utf-8")


def _texts(
    comparisons: Comparisons, records: Records, machine: Machine, plan: Plan, captions: Mapping[str, str]
) -> dict[str, Any]:
    """Everything on the page but its charts."""
    rows = view.rows(comparisons, records, machine, captions)
    runs = list(dict.fromkeys(record.run_id for record in records))
    return {
        "title": f"{', '.join(runs) or plan.name} \N{MIDDLE DOT} trainpace",
        "runs": runs,
        "plan": plan,
        "machine": machine,
        "started": min((record.started_at for record in records), default=quantity.UNKNOWN),
        "answers": sentences.answers(comparisons),
        "shapes": {workload: facts.workload_facts(found) for workload, found in view.by_workload(records).items()},
        "rows": rows,
        **_columns(rows),
        "outcomes": list(dict.fromkeys(row.outcome for row in rows)),
        "excluded": view.excluded(comparisons),
        "facts": facts.machine_facts(machine),
        "warnings": view.warnings(comparisons, records),
        "same_within": quantity.percent(100 * SAME_WITHIN),
        "data": _data(comparisons, machine, plan, runs),
        "style": Markup(_asset("style.css")),
        "script": Markup(_asset("script.js")),
    }


def _drawn(comparisons: Comparisons, records: Records, room_bytes: int) -> dict[str, Any]:
    """The charts of every kind by workload, and in `omitted` what found no room."""
    drawn: dict[str, dict[str, Figure]] = {kind: {} for kind in KINDS}
    omitted = []
    over_sizes = {}
    for index, found in enumerate(crossovers(comparisons)):
        chart = sizes.chart(found, f"sizes-{index}")
        title = f"{found.techniques} on {found.family}"
        room_bytes -= len(chart.svg.encode())
        over_sizes[title] = Figure(workload=title, svgs=(Markup(chart.svg),), note=chart.note)
    workloads = view.by_workload(comparisons)
    own = {name: [record for record in records if record.workload == name] for name in workloads}
    for kind, draw in KINDS.items():
        for index, (workload, arms) in enumerate(workloads.items()):
            made = [chart for chart in draw(arms, own[workload], f"{kind}-{index}") if chart]
            size = sum(len(chart.svg.encode()) for chart in made)
            if size > room_bytes:
                omitted.append(f"{kind.replace('_', ' ')} of {workload}")
            elif made:
                room_bytes -= size
                svgs = tuple(Markup(chart.svg) for chart in made)
                drawn[kind][workload] = Figure(workload=workload, svgs=svgs, note=made[0].note)
    return {**drawn, "sizes": over_sizes, "omitted": omitted}


def _columns(rows: Sequence[view.Row]) -> dict[str, Any]:
    """The columns of the table; one that is unknown throughout is named below it instead, with the reasons."""
    columns = list(zip(*(row.cells for row in rows), strict=True))
    some = [cells for cells in columns if any(cell.value is not None for cell in cells)]
    none = [cells for cells in columns if cells not in some]
    return {
        "shown": {cells[0].name: cells[0] for cells in some if cells[0].main},
        "further": {cells[0].name: cells[0] for cells in some if not cells[0].main},
        "absent": {cells[0].title: _reasons(cells, rows) for cells in none},
    }


def _reasons(cells: Sequence[view.Cell], rows: Sequence[view.Row]) -> str:
    """Why nothing is known; the arms that did not end ok have reasons of their own, told elsewhere."""
    reasons = [cell.why for cell, row in zip(cells, rows, strict=True) if cell.why and row.reason is None]
    return quantity.several(list(dict.fromkeys(reasons)), 9) or "no arm ended ok"


def _data(comparisons: Comparisons, machine: Machine, plan: Plan, runs: Sequence[str]) -> dict[str, Any]:
    data = {
        "runs": list(runs),
        "comparisons": [export.plain(item) for item in comparisons],
        "machine": dataclasses.asdict(machine),
        "plan": plan.to_json(),
    }
    finite: dict[str, Any] = export.finite(data)
    return finite
