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
        list[str] | None, typer.Option(help="One, or several joined by +, against the baseline. May repeat.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 30.0,
    seeds: Annotated[int, typer.Option(min=2, help="Complete trainings of each arm.")] = 5,
    rates: Annotated[int, typer.Option(min=1, help="Learning rates that each arm may choose from.")] = 5,
    updates: Annotated[
        int | None, typer.Option(min=1, help="After how many the baseline's loss is the target. Default: by --minutes.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="The held-out loss to reach, in its place.")] = None,
    price: Annotated[str | None, typer.Option(help="What an hour of this machine costs, as in 2.10/h.")] = None,
    workload: Workload,
    seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    out: Annotated[Path, typer.Option(help="Where its own folder is made.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="The folder of one that was interrupted, to go on with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, and stop.")] = False,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = Format.TABLE,
) -> None:
    """Train until the same held-out loss is reached, and tell what each technique is worth: time, updates, money."""
    with usage_errors():
        if resume is not None and (model or technique):
            raise ValueError("--resume takes what was asked for from its folder: leave out --model and --technique")
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
        fail(f"interrupted; go on with: trainpace worth --resume {made.folder}", INTERRUPTED)


def _price(text: str | None) -> float | None:
    """Raises ValueError for what is no price of an hour."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)(/h)?", text.strip())
    if not found:
        raise ValueError(f"price {text!r} is no price of an hour: give a number, as in 2.10/h")
    return float(found[1])
