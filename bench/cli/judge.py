"""`trainpace judge`: whether a change is worth keeping."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import INTERRUPTED, fail, usage_errors
from bench.cli.options import Model, Workload, grouped
from bench.spec import BASELINE, WorkloadSpec, parse_composition
from results.exit_code import ExitCode


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


@grouped
def judge(
    *,
    model: Model = None,
    base: Annotated[str | None, typer.Option(help="A git revision.")] = None,
    head: Annotated[str | None, typer.Option(help="A git revision. Default: the working tree.")] = None,
    base_technique: Annotated[str | None, typer.Option(help="A technique, or several joined by +.")] = None,
    head_technique: Annotated[str | None, typer.Option(help="A technique, or several joined by +.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 10.0,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each side, if the sides learn differently.")] = 8,
    repetitions: Annotated[int, typer.Option(min=2, help="How many pairs of processes to time.")] = 6,
    updates: Annotated[
        int | None,
        typer.Option(min=1, help="The target is the base's loss after this many updates. Default: by --minutes."),
    ] = None,
    ledger: Annotated[
        Path, typer.Option(help="The file that counts all judgements, so that false ones stay rare over all of them.")
    ] = Path("trainpace-judge.json"),
    workload: Workload,
    setup: Annotated[str | None, typer.Option(help="A shell command to run first in each checkout.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for the order of arms. Default: a new one.")] = None,
    out: Annotated[Path, typer.Option(help="Where to create the folder for this judgement.")] = Path("runs"),
    output: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.TEXT,
) -> None:
    """Judge a change by its time to the same loss: exit 0 keep, 1 discard, 3 not known, 4 invalid."""
    with usage_errors(ExitCode.INVALID):
        if model is None:
            raise ValueError("no model is named: give --model, as in --model train.py:make_model")
        workload.learns()
        techniques = parse_composition(base_technique or BASELINE), parse_composition(head_technique or BASELINE)
        workload.check(techniques, model)
        from bench.api.gates import Asked
        from bench.api.proposals import judge as judged
        from reports.text import proposal as text
        from results.proposal import plain

        asked = Asked(
            models=(model,),
            shape=workload.over(WorkloadSpec(model="")),
            revisions=(base, head),
            techniques=techniques,
            device=workload.place,
            plugins=workload.plugins,
            setup=setup,
            seed=seed,
        )
        try:
            folder, made = judged(
                asked,
                minutes=minutes,
                seeds=seeds,
                repetitions=repetitions,
                updates=updates,
                ledger=ledger,
                out=out,
                show=lambda line: typer.echo(line, err=True),
            )
        except KeyboardInterrupt:
            fail("interrupted: no verdict", INTERRUPTED)
    if output is Format.JSON:
        typer.echo(json.dumps(plain(made), indent=2))
    else:
        typer.echo(f"{text.render(made)}\n\njudge: {folder}")
    raise typer.Exit(made.exit_code)
