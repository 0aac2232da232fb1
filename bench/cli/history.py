"""`trainpace history`: paces over many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors
from bench.cli.options import KEPT, kept


def history(
    runs: Annotated[
        list[Path], typer.Argument(parser=kept, metavar=KEPT, help="Finished runs of one machine, or a folder of them.")
    ],
    reference: Annotated[
        str | None, typer.Option(help="A workload that every run has and no change affects. Default: gpt2/nano.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("history.html"),
    force: Annotated[bool, typer.Option("--force", help="Combine runs from different machines or data.")] = False,
) -> None:
    """Draw each workload's pace over time relative to a reference, and point out likely changes."""
    from reports.page import history as page
    from reports.wording.printable import printable
    from results import summaries
    from results.folders import runs_in
    from results.history import history as paces
    from results.summary import incomparable

    with usage_errors():
        loaded = [summaries.summary(folder) for given in runs for folder in runs_in(given)]
        differences = incomparable([run.conditions for run in loaded])
        if differences and not force:
            raise ValueError(f"{'; '.join(differences)}: use --force to combine them anyway")
        pinned, found = paces(loaded, reference)
        out.write_text(page.render(pinned, found), encoding="utf-8")
    for line in page.answer(found):
        typer.echo(printable(line))
    typer.echo(f"history: {out}")
