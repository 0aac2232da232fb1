"""`trainpace report`: the page of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors
from bench.cli.options import KEPT, kept


def report(
    runs: Annotated[list[Path], typer.Argument(parser=kept, metavar=KEPT, help="Finished runs.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file. Default: report.html in the run, or report-with-OTHERS.html for several."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Combine runs from different machines or data.")] = False,
) -> None:
    """Render the HTML report of one run, or of several runs from one machine as if they were one."""
    from bench.api.finished import page_of
    from results import summaries
    from results.summary import incomparable

    with usage_errors():
        if len({folder.resolve() for folder in runs}) < len(runs):
            raise ValueError("a run is named twice, so its repetitions would be counted twice: name each run once")
        differences = incomparable([summaries.summary(folder).conditions for folder in runs], as_one=True)
        if differences and not force:
            raise ValueError(f"{'; '.join(differences)}: use --force to combine them anyway")
        page = out or _page(runs)
        page.write_text(page_of(runs), encoding="utf-8")
    typer.echo(f"report: {page}{f', of {len(runs)} runs as one' if len(runs) > 1 else ''}")


def _page(runs: list[Path]) -> Path:
    """In the first run, which keeps its own page."""
    if len(runs) == 1:
        return runs[0] / "report.html"
    more = f"-and-{len(runs) - 2}-more" if len(runs) > 2 else ""
    return runs[0] / f"report-with-{runs[1].name}{more}.html"
