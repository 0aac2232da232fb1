"""`trainpace compare`: the comparisons of a run, or of two."""

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
    MARKDOWN = "markdown"


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(parser=kept, metavar=KEPT, help="One run, or two: the second is compared with the first."),
    ],
    output: Annotated[Format, typer.Option("--format", help="table, json, csv or markdown.")] = Format.TABLE,
    force: Annotated[bool, typer.Option("--force", help="Compare runs from different machines or data.")] = False,
) -> None:
    """Print the comparisons of a run, or of one run with another."""
    from bench.cli import comparing
    from reports.formats import export
    from reports.text import markdown
    from reports.wording.printable import printable
    from results import summaries
    from results.runs import compare_runs
    from results.summary import incomparable

    with usage_errors():
        if len(runs) > 2:
            raise ValueError(f"compare takes one run or two, not {len(runs)}: name a base and a head")
        loaded = [summaries.told(folder) for folder in runs]
        differences = incomparable([run.summary.conditions for run in loaded])
        if differences and not force:
            raise ValueError(f"{'; '.join(differences)}: use --force to compare them anyway")
        for difference in differences:
            typer.echo(f"warning: {printable(difference)}", err=True)
        comparisons = loaded[0].comparisons if len(runs) == 1 else compare_runs(loaded[0], loaded[1])
    match output:
        case Format.TABLE:
            comparing.print_table(comparisons)
        case Format.JSON:
            typer.echo(export.to_json(comparisons))
        case Format.CSV:
            typer.echo(export.to_csv(comparisons), nl=False)
        case Format.MARKDOWN:
            typer.echo(markdown.render(comparisons))
