"""`trainpace publish`: a run for others to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors
from bench.cli.options import KEPT, kept


def publish(
    run: Annotated[Path, typer.Argument(parser=kept, metavar=KEPT, help="A finished run.")],
    out: Annotated[Path, typer.Option(help="The folder to create.")],
) -> None:
    """Write a copy of a run without names, hosts and paths: parquet, report, machine and a list of what is left out."""
    with usage_errors():
        from bench.api.finished import published

        published(run, out)
    typer.echo(f"published: {out}; read it before you share it")
