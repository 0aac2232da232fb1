"""`trainpace worth`: how long it takes to reach the same loss."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import INTERRUPTED, fail, usage_errors
from bench.cli.options import Format, Model, Workload, grouped
from bench.spec import parse_composition


@grouped
def worth(
    *,
    model: Model = None,
    technique: Annotated[
        list[str] | None,
        typer.Option(help="A technique to compare with the baseline, or several joined by +. Can be repeated."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 30.0,
    seeds: Annotated[int, typer.Option(min=2, help="How many complete trainings per arm.")] = 5,
    rates: Annotated[int, typer.Option(min=1, help="How many learning rates to try per arm.")] = 5,
    updates: Annotated[
        int | None,
        typer.Option(min=1, help="The target is the baseline's loss after this many updates. Default: by --minutes."),
    ] = None,
    target: Annotated[float | None, typer.Option(help="The held-out loss to reach, instead of --updates.")] = None,
    price: Annotated[str | None, typer.Option(help="What an hour of this machine costs, such as 2.10/h.")] = None,
    workload: Workload,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    out: Annotated[Path, typer.Option(help="Where to create the folder for this run.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="The folder of an interrupted run to continue.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, and stop.")] = False,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = Format.TABLE,
) -> None:
    """Train to the same held-out loss, and show what each technique saves: time, updates, money."""
    with usage_errors():
        if resume is not None and (model or technique):
            raise ValueError("--resume takes its settings from the folder: leave out --model and --technique")
        workload.learns()
        hourly = _price(price)
        workload.check((parse_composition(text) for text in technique or ()), model)
        from bench import api

        with contextlib.redirect_stdout(sys.stderr) if output is Format.JSON else contextlib.nullcontext():
            made = api.worth(
                model,
                technique or [],
                minutes=minutes,
                seeds=seeds,
                rates=rates,
                updates=updates,
                target=target,
                price_per_hour=hourly,
                device=workload.place,
                overrides=workload.overrides(),
                seed=seed,
                plugins=workload.plugins,
                out=out,
                resume=resume,
                dry_run=dry_run,
            )
    if made is None:
        return
    if output is Format.JSON:
        typer.echo(json.dumps(made.plain(), indent=2))
    else:
        typer.echo(f"\n{made.text()}\n\nreport: {made.folder / 'report.html'}")
    if made.answer.interrupted:
        fail(f"interrupted; continue with: trainpace worth --resume {made.folder}", INTERRUPTED)


def _price(text: str | None) -> float | None:
    """Raises ValueError for what is no price of an hour."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)(/h)?", text.strip())
    if not found:
        raise ValueError(f"price {text!r} is not a price per hour: give a number, such as 2.10/h")
    return float(found[1])
