"""The commands, put together."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from bench import __version__
from bench.causes import DamagedRecords
from bench.cli.calibration import calibration
from bench.cli.check_technique import check_technique
from bench.cli.compare import compare
from bench.cli.console import INTERRUPTED, USAGE_ERROR
from bench.cli.day import day
from bench.cli.doctor import doctor
from bench.cli.export import export
from bench.cli.fit import fit
from bench.cli.gate import gate
from bench.cli.history import history
from bench.cli.init import init
from bench.cli.join import join
from bench.cli.judge import judge
from bench.cli.list import list_
from bench.cli.publish import publish
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
app.command()(publish)
app.command()(export)
app.command()(join)
app.command()(init)


_python_says = warnings.formatwarning


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """What a warning says, and of our own not from where."""
    ours = category is DamagedRecords
    return f"trainpace: {message}\n" if ours else _python_says(message, category, filename, lineno, line)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """The entry point of the `trainpace` command."""
    # Schedulers send SIGTERM when time is used up: it keeps what Ctrl-C keeps.
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.formatwarning = _warning
    for stream in (sys.stdout, sys.stderr):
        # In a locale that lacks a character, another one is shown instead of failing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    quieten()
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    # typer reports what it cannot parse in a box of several lines, and the library that draws it is slow to import.
    try:
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        # pydantic's messages come through where typer uses it for checks.
        said = getattr(error, "format_message", error.__str__)().replace("Value error, ", "")
        context: typer.Context | None = getattr(error, "ctx", None)
        more = f"; see `{context.command_path} --help`" if context else ""
        typer.echo(f"trainpace: {' '.join(said.split()).rstrip('.')}{more}", err=True)
        sys.exit(getattr(error, "exit_code", USAGE_ERROR))
    except KeyboardInterrupt:
        # typer handles it in the commands, but not while it puts them together.
        sys.exit(INTERRUPTED)
