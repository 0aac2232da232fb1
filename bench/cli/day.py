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
            help="A family of language models, or FAMILY/SIZE for that size whatever the plan says. Default: gpt2."
        ),
    ] = None,
    hours: Annotated[float | None, typer.Option(min=0.01, help="How long it is trained.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="The same in minutes. Default: 60.")] = None,
    technique: Annotated[
        list[str] | None, typer.Option(help="What it is trained under: one, or several joined by +. May repeat.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe.json that `trainpace tune` made, in its place.")
    ] = None,
    go: Annotated[bool, typer.Option("--go", help="Train it, once the plan is made.")] = False,
    updates: Annotated[int | None, typer.Option(min=1, help="So many updates, in place of the time.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End it when the held-out loss has not fallen for so many evaluations.")
    ] = None,
    text: Text,
    sequence: Tokens = None,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the data.")] = 0,
    out: Annotated[Path, typer.Option(help="Where its own folder is made.")] = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="The folder of a plan, or of a training that was interrupted, to go on with.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print which sizes would be looked at, and stop.")] = False,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = Format.TABLE,
) -> None:
    """Plan the best language model that this machine can train in the time, and with --go train it."""
    with usage_errors():
        if resume is not None and (
            model or hours or minutes or technique or recipe or updates or patience or text.data
        ):
            raise ValueError("--resume takes what was asked for from its folder: leave out all that shapes it")
        if hours is not None and minutes is not None:
            raise ValueError("--hours and --minutes are the same: give one of them")
        if recipe is not None and technique:
            raise ValueError("--recipe has its techniques: leave out --technique")
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
                    f"it ended: {failure.reason}; what is kept goes on with: trainpace day --resume and its folder",
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
