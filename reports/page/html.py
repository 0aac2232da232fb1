"""The report: one HTML file that needs only a browser. It contains all charts, styles, script and data."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bench.spec import Plan
from harness.record import Machine, Record
from reports import charts
from reports.charts import sizes
from reports.charts.chart import Chart, Section
from reports.charts.forest import FORESTS
from reports.formats import export, rows
from reports.page.templates import asset, environment
from reports.text import machines as text
from reports.wording import facts, matrix, quantity, sentences, view
from results.compare import Comparison
from results.crossover import crossovers
from results.idle import ErrorRate
from results.machines import side_by_side
from results.statistics import SAME_WITHIN

PAGE_BYTES = 1_950_000
"""The maximum size of a page. Charts are drawn in order of importance while there is room besides the table."""

_BUTTON_BYTES, _FRAME_BYTES = 60, 300
"""The size of the markup around a name below a chart, and around a figure."""

Comparisons = Sequence[Comparison]
Records = Sequence[Record]


def _sections() -> tuple[Section, ...]:
    """The SECTIONS of all modules in reports.charts, in the order of the page and of importance: if there is no room
    for all, the last are left out."""
    names = [f"{charts.__name__}.{module.name}" for module in pkgutil.iter_modules(charts.__path__)]
    found = [section for name in names for section in getattr(importlib.import_module(name), "SECTIONS", ())]
    return tuple(sorted(found, key=lambda section: section.rank))


SECTIONS = _sections()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart of one workload for the page, in one version or in a wide and a narrow one. `names` are, by arm, those of
    marks that the chart does not name."""

    workload: str
    svgs: tuple[Markup, ...]
    note: str
    names: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """The size on the page, with the markup around each name and around the figure."""
        names = sum(len(f"{arm}{label}".encode()) + _BUTTON_BYTES for arm, label in self.names.items())
        return sum(len(svg.encode()) for svg in self.svgs) + len(self.note.encode()) + names + _FRAME_BYTES


def render(
    comparisons: Comparisons,
    records: Records,
    machine: Machine,
    plan: Plan,
    *,
    captions: Mapping[str, str] | None = None,
    known: ErrorRate | None = None,
    machines: Sequence[Machine] = (),
) -> str:
    """The whole page. `captions` has the one-line caption of each technique, by name. `known` says how often verdicts
    are wrong on `machine`, the one of `machines` with most heats."""
    template = environment().get_template("template.html.j2")
    page = _texts(comparisons, records, machine, plan, captions or {}) | {
        "known": sentences.error_rate(known),
        "machines": [text.row(item) for item in side_by_side(records, machines)] if len(machines) > 1 else [],
    }
    nothing: dict[str, dict[str, Figure]] = {section.name: {} for section in (FORESTS, *SECTIONS)}
    bare = template.render(page, omitted=[], sizes={}, figures=nothing)
    return template.render(page, **_drawn(comparisons, records, machine, PAGE_BYTES - len(bare.encode())))


def _texts(
    comparisons: Comparisons, records: Records, machine: Machine, plan: Plan, captions: Mapping[str, str]
) -> dict[str, Any]:
    """Everything on the page except its charts."""
    rows = view.rows(comparisons, records, machine, captions)
    runs = list(dict.fromkeys(record.run_id for record in records))
    return {
        "title": f"{', '.join(runs) or plan.name} \N{MIDDLE DOT} trainpace",
        "runs": runs,
        "plan": plan,
        "machine": machine,
        "started": min((record.started_at for record in records), default=quantity.UNKNOWN),
        "sections": SECTIONS,
        "answers": sentences.answers(comparisons),
        "headline": sentences.headline(comparisons),
        "matrix": matrix.matrix(comparisons),
        "shapes": {workload: facts.workload_facts(found) for workload, found in view.by_workload(records).items()},
        "rows": rows,
        **_columns(rows),
        "outcomes": list(dict.fromkeys(row.outcome for row in rows)),
        "excluded": view.excluded(comparisons) + view.unmeasured(comparisons, plan),
        "facts": facts.machine_facts(machine),
        "warnings": view.warnings(comparisons, records),
        "same_within": quantity.percent(100 * SAME_WITHIN),
        "data": _data(comparisons, machine, plan, runs),
        "style": Markup(asset("style.css")),
        "script": Markup(asset("script.js")),
    }


def _drawn(comparisons: Comparisons, records: Records, machine: Machine, room_bytes: int) -> dict[str, Any]:
    """The figures of every section by workload; `omitted` has those without room."""
    omitted = []
    over_sizes = {}
    for index, found in enumerate(crossovers(comparisons)):
        figure = _figure(f"{found.techniques} on {found.family}", [sizes.chart(found, f"sizes-{index}")])
        room_bytes -= figure.size_bytes
        over_sizes[figure.workload] = figure
    workloads = view.by_workload(comparisons)
    own = {name: [record for record in records if record.workload == name] for name in workloads}
    figures: dict[str, dict[str, Figure]] = {}
    for section in (FORESTS, *SECTIONS):
        drawn = figures[section.name] = {}
        for index, (workload, arms) in enumerate(workloads.items()):
            made = [chart for chart in section.draw(arms, own[workload], machine, f"{section.name}-{index}") if chart]
            if not made:
                continue
            figure = _figure(workload, made)
            if figure.size_bytes > room_bytes:
                omitted.append(f"{section.name.replace('-', ' ')} of {workload}")
            else:
                room_bytes -= figure.size_bytes
                drawn[workload] = figure
    return {"figures": figures, "sizes": over_sizes, "omitted": omitted}


def _figure(workload: str, versions: Sequence[Chart]) -> Figure:
    svgs = tuple(Markup(chart.svg) for chart in versions)
    return Figure(workload=workload, svgs=svgs, note=versions[0].note, names=versions[0].names)


def _columns(rows: Sequence[view.Row]) -> dict[str, Any]:
    """The columns of the table. A column without any known figure is named below the table, with the reasons."""
    columns = list(zip(*(row.cells for row in rows), strict=True))
    some = [cells for cells in columns if any(cell.value is not None for cell in cells)]
    none = [cells for cells in columns if cells not in some]
    return {
        "shown": {cells[0].name: cells[0] for cells in some if cells[0].main},
        "further": {cells[0].name: cells[0] for cells in some if not cells[0].main},
        "absent": {cells[0].title: _reasons(cells, rows) for cells in none},
    }


def _reasons(cells: Sequence[view.Cell], rows: Sequence[view.Row]) -> str:
    """Why nothing in a column is known. Arms that did not end ok have reasons of their own, shown elsewhere."""
    reasons = [cell.why for cell, row in zip(cells, rows, strict=True) if cell.why and row.reason is None]
    return quantity.several(list(dict.fromkeys(reasons)), 9) or "no arm ended ok"


def _data(comparisons: Comparisons, machine: Machine, plan: Plan, runs: Sequence[str]) -> dict[str, Any]:
    data = {
        "runs": list(runs),
        "comparisons": [export.plain(item) for item in comparisons],
        "machine": dataclasses.asdict(machine),
        "plan": plan.to_json(),
    }
    finite: dict[str, Any] = rows.finite(data)
    return finite
