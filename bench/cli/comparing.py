"""What commands show of records: the table on the terminal, and the page."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console

from bench import catalogue
from bench.spec import Plan
from harness.record import Machine, Record
from reports import terminal
from results.compare import Comparison, compare
from results.idle import error_rate, load


def print_table(comparisons: Sequence[Comparison]) -> None:
    """As a table where there is a terminal to draw it on, else as lines for programs and logs."""
    console = Console()
    if console.is_terminal:
        console.print(terminal.table(comparisons))
    else:
        typer.echo(terminal.plain(comparisons))


def page(records: Sequence[Record], machine: Machine, plan: Plan) -> str:
    """The report, with how often this machine's calibrations say that it is wrong."""
    from reports import html  # It draws with matplotlib, which takes half a second to import.

    return html.render(
        compare(records, machine),
        records,
        machine,
        plan,
        captions=catalogue.captions(),
        known=error_rate(load(machine.machine_id)),
    )
