"""Comparisons for a terminal: a table in colour, or aligned text if there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from reports.wording import view
from reports.wording.columns import COLUMNS, TITLES
from reports.wording.printable import printable
from results.compare import Comparison

FIGURES = tuple(column.name for column in COLUMNS if column.terminal)
STYLES = {"faster": "bold blue", "slower": "yellow", "same": "default", "unclear": "dim", "baseline": "bold"}
HEADER = ("Workload", "Techniques", "Outcome", *(TITLES[name] for name in FIGURES))
_TEXT_COLUMNS = 3


def table(comparisons: Sequence[Comparison]) -> Table:
    """One line per arm, with a rule between workloads; the caption has the remarks."""
    shown = Table(
        box=box.SIMPLE_HEAD, caption=Text("\n".join(map(printable, view.remarks(comparisons)))), caption_justify="left"
    )
    for index, title in enumerate(HEADER):
        # An interval split over two lines is hard to read, so names are split instead.
        interval = title == TITLES["speedup"]
        justify: JustifyMethod = "left" if index < _TEXT_COLUMNS else "right"
        shown.add_column(title, justify=justify, overflow="fold", no_wrap=interval)
    previous = None
    for row in view.rows(comparisons):
        if previous not in (None, row.workload):
            shown.add_section()
        style = STYLES.get(row.outcome, "red")
        # Text, not str: names and intervals contain brackets, which rich would read as markup.
        shown.add_row(*(Text(text, style=style if text == row.qualified else "") for text in _line(row)))
        previous = row.workload
    return shown


def plain(comparisons: Sequence[Comparison]) -> str:
    """The same as text without colour, columns aligned with spaces."""
    lines = [HEADER, *(_line(row) for row in view.rows(comparisons))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    return "\n".join([*aligned, *map(printable, view.remarks(comparisons))])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text.ljust(width) if index < _TEXT_COLUMNS else text.rjust(width)
        for index, (text, width) in enumerate(zip(line, widths, strict=True))
    ]


def _line(row: view.Row) -> tuple[str, ...]:
    figures = {cell.name: cell.text for cell in row.cells}
    shown = (row.workload, row.techniques, row.qualified, *(figures[name] for name in FIGURES))
    return tuple(map(printable, shown))
