"""`trainpace list`: what there is to choose from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bench import catalogue, plugins
from bench.catalogue import Kind
from bench.cli.console import usage_errors
from bench.cli.options import Plugins
from reports.text import listing


def list_(
    what: Annotated[Kind, typer.Argument(help="What to list.")],
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with every fact.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
) -> None:
    """List techniques, models or plans."""
    with usage_errors():
        for file in plugin or ():
            plugins.load_file(file)
        rows = catalogue.rows(what)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        brief = [{name: row[name] for name in row if name not in catalogue.DETAILS} for row in rows]
        typer.echo(listing.markdown(brief) if as_markdown else listing.aligned(brief))
