"""`trainpace query`: SQL over all that was measured."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors
from bench.cli.options import KEPT, kept


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def query(
    sql: Annotated[str, typer.Argument(help="SQL over the tables runs, arms, steps, comparisons and records.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=kept, metavar=KEPT, help="Runs, folders of runs, or URLs. Default: runs.", show_default=False
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="table, json or csv.")] = Format.TABLE,
) -> None:
    """Run SQL over the records of runs and their comparisons."""
    with usage_errors():
        from reports.formats import rows
        from reports.text import listing
        from results.query import query as answered

        answer = answered(sql, runs or [Path("runs")])
    match output:
        case Format.TABLE:
            typer.echo(listing.aligned(answer.plain()) or "no rows")
        case Format.JSON:
            typer.echo(rows.to_json(answer.plain()))
        case Format.CSV:
            typer.echo(rows.to_csv(answer.names, answer.plain()), nl=False)
