"""`trainpace tune`: the fastest honest recipe for a model, rung by rung."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import cards, catalogue
from bench.cli.console import INTERRUPTED, fail, usage_errors
from bench.cli.options import Batch, Data, DeviceName, LabelColumn, Plugins, Sequence, TextColumn
from bench.facts import Objective
from bench.spec import Phase


def tune(
    model: Annotated[
        str | None, typer.Option(help="FAMILY/SIZE, FILE.py:FUNCTION, a model folder or a Hugging Face id.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 30.0,
    memory: Annotated[str | None, typer.Option(help="The most that a recipe may take, as in 16GB.")] = None,
    objective: Annotated[
        Objective | None, typer.Option(help="The time of an update (the default), that to the same loss, or energy.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help='What may change beside rounding, as in "update rule". May repeat.')
    ] = None,
    technique: Annotated[
        list[str] | None, typer.Option(help="Try this one. May repeat. Default: all that may join.")
    ] = None,
    device: DeviceName = None,
    phase: Annotated[Phase | None, typer.Option(help="Pretrain (the default), finetune or infer.")] = None,
    plugin: Plugins = None,
    batch: Batch = None,
    sequence: Sequence = None,
    data: Data = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    seed: Annotated[int, typer.Option(help="Of the order of arms, and of what they train.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the tuning's own folder is made.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="The folder of an interrupted tuning to go on with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be tried, and stop.")] = False,
) -> None:
    """Find the fastest recipe that trains the same model, confirm it afresh, and say what each part of it adds."""
    with usage_errors():
        if resume is not None and (model or technique or allow or memory or objective):
            raise ValueError("--resume takes what was asked for from the tuning: leave out --model and what shapes it")
        # Before anything that takes seconds to import.
        if memory is not None:
            cards.memory(memory)
        if not plugin:
            catalogue.check([(name,) for name in technique or ()])
        from bench import api

        made = api.tune(
            model,
            minutes=minutes,
            memory=memory,
            objective=objective,
            allow=allow or (),
            techniques=technique or (),
            device=device.value if device else None,
            phase=phase,
            batch=batch,
            sequence=sequence,
            data=data,
            text_column=text_column,
            label_column=label_column,
            seed=seed,
            plugins=plugin or (),
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
        fail(f"interrupted; go on with: trainpace tune --resume {made.folder}", INTERRUPTED)
