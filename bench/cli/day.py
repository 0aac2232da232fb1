"""`trainpace day`: the best language model that this machine can train in the time."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import NOTHING_MEASURED, fail, usage_errors
from bench.cli.options import Format, Text, Tokens, grouped
from bench.spec import Overrides, parse_composition


@grouped
def day(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="A family of language models, or FAMILY/SIZE to fix the size instead of planning it. Default: gpt2."
        ),
    ] = None,
    hours: Annotated[float | None, typer.Option(min=0.01, help="How many hours to train.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="How many minutes to train. Default: 60.")] = None,
    technique: Annotated[
        list[str] | None, typer.Option(help="A technique to train with, or several joined by +. Can be repeated.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe.json from `trainpace tune`, instead of --technique.")
    ] = None,
    go: Annotated[bool, typer.Option("--go", help="Train the model once the plan is made.")] = False,
    updates: Annotated[int | None, typer.Option(min=1, help="Train for this many updates instead of a time.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop when the held-out loss has not fallen for this many evaluations.")
    ] = None,
    text: Text,
    sequence: Tokens = None,
    seed: Annotated[int, typer.Option(help="Seed for the weights and the order of the data.")] = 0,
    out: Annotated[Path, typer.Option(help="Where to create the folder for this plan.")] = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="The folder of a plan, or of an interrupted training, to continue.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print which sizes would be tried, and stop.")] = False,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = Format.TABLE,
) -> None:
    """Plan the best language model that this machine can train in the given time; with --go, also train it."""
    with usage_errors():
        if resume is not None and (
            model or hours or minutes or technique or recipe or updates or patience or text.data
        ):
            raise ValueError("--resume takes its settings from the folder: leave out --model and other settings")
        if hours is not None and minutes is not None:
            raise ValueError("--hours and --minutes set the same thing: give only one of them")
        if recipe is not None and technique:
            raise ValueError("--recipe already names the techniques: leave out --technique")
        text.check(parse_composition(one) for one in technique or ())
        from bench import api
        from bench import recipe as recipes
        from harness.processes.failures import ArmFailed

        techniques = technique or ([recipes.read(recipe).label] if recipe else [])
        with contextlib.redirect_stdout(sys.stderr) if output is Format.JSON else contextlib.nullcontext():
            try:
                made = api.day(
                    model or "gpt2",
                    minutes=60 * hours if hours is not None else minutes if minutes is not None else 60.0,
                    techniques=techniques,
                    updates=updates,
                    patience=patience,
                    device=text.place,
                    overrides=Overrides(
                        batch=text.batch, sequence=sequence, corpus=text.data, text_column=text.text_column
                    ),
                    seed=seed,
                    plugins=text.plugins,
                    out=out,
                    resume=resume,
                    go=go,
                    dry_run=dry_run,
                )
            except ArmFailed as failure:
                fail(
                    f"stopped: {failure.reason}; to continue from what was kept: trainpace day --resume FOLDER",
                    NOTHING_MEASURED,
                )
    if made is None:
        return
    if output is Format.JSON:
        typer.echo(json.dumps(made.plain(), indent=2))
    else:
        typer.echo(f"\n{made.text()}\n\nplan: {made.folder / 'plan.json'}\nreport: {made.folder / 'report.html'}")
        told = f"model: {made.folder / 'model'}" if made.day.reached else None
        typer.echo(told or f"train it with: trainpace day --go --resume {made.folder}")
