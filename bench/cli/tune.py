"""`trainpace tune`: the fastest honest recipe for a model, rung by rung."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import cards
from bench.cli.console import INTERRUPTED, fail, usage_errors
from bench.cli.options import Model, Workload, grouped
from bench.facts import Objective


@grouped
def tune(
    *,
    model: Model = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 30.0,
    memory: Annotated[str | None, typer.Option(help="The most memory that a recipe may take, such as 16GB.")] = None,
    objective: Annotated[
        Objective | None,
        typer.Option(help="Reduce time per update (pace, the default), time to the same loss (worth), or energy."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help='What may change besides rounding, such as "update rule". Can be repeated.'),
    ] = None,
    technique: Annotated[
        list[str] | None, typer.Option(help="A technique to try. Can be repeated. Default: all that are allowed.")
    ] = None,
    workload: Workload,
    seed: Annotated[int, typer.Option(help="Seed for the order of arms and for training.")] = 0,
    out: Annotated[Path, typer.Option(help="Where to create the folder for this tuning.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="The folder of an interrupted tuning to continue.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be tried, and stop.")] = False,
) -> None:
    """Find the fastest recipe that trains the same model, confirm it with fresh runs, and show what each part adds."""
    with usage_errors():
        if resume is not None and (model or technique or allow or memory or objective):
            raise ValueError("--resume takes its settings from the folder: leave out --model and other settings")
        # Before anything that takes seconds to import.
        if memory is not None:
            cards.memory(memory)
        workload.check(((name,) for name in technique or ()), model)
        from bench import api

        made = api.tune(
            model,
            minutes=minutes,
            memory=memory,
            objective=objective,
            allow=allow or (),
            techniques=technique or (),
            **workload.plain(),
            seed=seed,
            out=out,
            resume=resume,
            dry_run=dry_run,
            say=typer.echo,
        )
    if made is None:
        return
    reason = made.ladder.no_script
    script = f"none, because {reason}" if reason else str(made.folder / "recipe.py")
    files = (f"script: {script}", f"recipe: {made.folder / 'recipe.json'}", f"report: {made.folder / 'report.html'}")
    typer.echo("\n".join(("", made.text(), "", *files)))
    if made.ladder.interrupted:
        fail(f"interrupted; continue with: trainpace tune --resume {made.folder}", INTERRUPTED)
