"""What commands show of comparisons on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console

from reports.text import terminal
from results.compare import Comparison


def print_table(comparisons: Sequence[Comparison]) -> None:
    """As a table where there is a terminal to draw it on, else as lines for programs and logs."""
    console = Console()
    if console.is_terminal:
        console.print(terminal.table(comparisons))
    else:
        typer.echo(terminal.plain(comparisons))
