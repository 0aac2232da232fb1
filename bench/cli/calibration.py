"""`trainpace calibration`: what calibrations have found out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors


def calibration(
    file: Annotated[Path | None, typer.Argument(help="A file of outcomes. Default: all of this user's files.")] = None,
) -> None:
    """Print the results of calibrating the gate and runs, as Markdown."""
    from reports.text import calibrated
    from results import calibration, idle, kept

    with usage_errors():
        files = [file] if file else sorted(kept.folder().glob("*.jsonl"))
        if not files:
            raise ValueError(
                "nothing has been calibrated yet: run `trainpace gate --calibrate 40` or "
                "`trainpace run --calibrate 10` with your --model"
            )
        for found in files:
            is_run = idle.is_in(found)
            shown = calibrated.of_runs(idle.read(found)) if is_run else calibrated.of_gates(calibration.read(found))
            typer.echo(f"machine {found.stem}\n\n{shown}\n")
