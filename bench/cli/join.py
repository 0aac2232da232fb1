"""`trainpace join`: lend this machine to a run that another one leads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors


def join(
    leader: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the leading run listens.")],
    token_file: Annotated[Path, typer.Option(help="The file with the leading run's token.")],
    log: Annotated[Path, typer.Option(help="Where to write this machine's output.")] = Path("trainpace-join.log"),
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the leading run to listen.")] = 300.0,
) -> None:
    """Lend this machine's cores or GPUs to a run that another machine leads, until it ends."""
    with usage_errors():
        from harness.hosts import joined, wire

        address, secret = wire.address(leader), wire.token(token_file)
        joined.join(address, secret, log=log, wait_s=wait, say=typer.echo)
