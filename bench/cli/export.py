"""`trainpace export`: a run for experiment trackers."""

from __future__ import annotations

import importlib
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors
from bench.cli.options import KEPT, kept


class Tracker(StrEnum):
    """Each is a file of reports/exports."""

    CSV = "csv"
    MLFLOW = "mlflow"
    TENSORBOARD = "tensorboard"
    WANDB = "wandb"


def export(
    run: Annotated[Path, typer.Argument(parser=kept, metavar=KEPT, help="A finished run.")],
    to: Annotated[Tracker, typer.Option(help="csv, mlflow, tensorboard or wandb.")],
    out: Annotated[Path, typer.Option(help="The folder to create.")],
) -> None:
    """Write a run's arms, with their figures and steps, in the format of an experiment tracker."""
    with usage_errors():
        from reports.exports.arms import arms
        from results import store

        if out.exists():
            raise ValueError(f"{str(out)!r} already exists: give a new folder")
        found = arms(store.read(run), store.read_machines(run), store.read_machine(run))
        out.mkdir(parents=True)
        try:
            importlib.import_module(f"reports.exports.{to.value}").write(found, out)
        except ValueError:
            shutil.rmtree(out)
            raise
    typer.echo(f"exported: {out}, {len(found)} arms for {to.value}")
