"""The commands, put together."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from bench import __version__
from bench.cli.calibration import calibration
from bench.cli.check_technique import check_technique
from bench.cli.compare import compare
from bench.cli.console import USAGE_ERROR
from bench.cli.day import day
from bench.cli.doctor import doctor
from bench.cli.fit import fit
from bench.cli.gate import gate
from bench.cli.history import history
from bench.cli.init import init
from bench.cli.judge import judge
from bench.cli.list import list_
from bench.cli.query import query
from bench.cli.report import report
from bench.cli.run import run
from bench.cli.tune import tune
from bench.cli.worth import worth
from harness.processes.quiet import quieten

app = typer.Typer(pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trainpace {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which training speed-up is worth turning on for my model on my machine, and what does it cost?"""


app.command()(run)
app.command()(tune)
app.command()(worth)
app.command()(judge)
app.command()(day)
app.command("list")(list_)
app.command()(fit)
app.command()(compare)
app.command()(report)
app.command()(check_technique)
app.command()(doctor)
app.command()(gate)
app.command()(calibration)
app.command()(history)
app.command()(query)
app.command()(init)


def main() -> None:
    """The entry point of the `trainpace` command."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that lacks a letter shows another one, and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    quieten()
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    # typer's own words on what cannot be parsed are a box of several lines, and what draws it takes long to import.
    try:
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        said = getattr(error, "format_message", error.__str__)()
        context: typer.Context | None = getattr(error, "ctx", None)
        more = f"; `{context.command_path} --help` lists what there is" if context else ""
        typer.echo(f"trainpace: {' '.join(said.split()).rstrip('.')}{more}", err=True)
        sys.exit(getattr(error, "exit_code", USAGE_ERROR))
