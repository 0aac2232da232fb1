"""Comparisons as a table in GitHub Flavored Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from reports.wording import view
from reports.wording.columns import COLUMNS, TITLES
from reports.wording.printable import printable
from results.compare import Comparison

FIGURES = tuple(column.name for column in COLUMNS if column.markdown)
_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "`": "\\`", "*": "\\*", "<": "&lt;", ">": "&gt;", "&": "&amp;"})


def render(comparisons: Sequence[Comparison]) -> str:
    """One line per arm, and below the table the remarks: the kind of intervals, and why arms are not ranked."""
    if not comparisons:
        return "There is no record, so there is nothing to say."
    header = ["Workload", "Techniques", "Outcome", *(TITLES[name] for name in FIGURES)]
    ruler = ["---"] * 3 + ["---:"] * (len(header) - 3)
    lines = [header, ruler, *(_cells(row) for row in view.rows(comparisons))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    remarks = "\n".join(f"- {escaped(remark)}" for remark in view.remarks(comparisons))
    return f"{table}\n\n{remarks}".rstrip()


def escaped(text: str) -> str:
    """The text escaped so that Markdown shows it literally, on one line."""
    return printable(" ".join(text.split())).translate(_ESCAPES)


def _cells(row: view.Row) -> list[str]:
    figures = {cell.name: cell.text for cell in row.cells}
    shown = [row.workload, row.techniques, row.qualified, *(figures[name] for name in FIGURES)]
    return [escaped(text) for text in shown]
