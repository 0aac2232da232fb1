"""`trainpace fit`: what fits where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench import cards as known_cards
from bench.cli.console import usage_errors
from bench.cli.options import Format, Models, Task, grouped
from bench.spec import parse_composition


@grouped
def fit(
    *,
    model: Models = None,
    technique: Annotated[
        list[str] | None,
        typer.Option(help="A technique, or several joined by +. Can be repeated. Default: those that save memory."),
    ] = None,
    card: Annotated[
        list[str] | None,
        typer.Option(help="A GPU that need not be in this machine, such as L40S or 24GB. Can be repeated."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="With --card: how many such cards.")] = 1,
    memory: Annotated[
        str | None, typer.Option(help="Use no more than this much of this machine's memory, such as 16GB.")
    ] = None,
    task: Task,
    sequence: Annotated[list[int] | None, typer.Option(min=1, help="Tokens per sample. Can be repeated.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check by training just below and just above each limit (CPU only).")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Also write the result as an HTML page.")] = None,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = Format.TABLE,
) -> None:
    """Predict what fits before anything runs: the memory and largest batch of models under techniques."""
    with usage_errors():
        # Before anything that takes seconds to import.
        for name in card or ():
            known_cards.card(name)
        if memory is not None:
            known_cards.memory(memory)
        task.check((parse_composition(text) for text in technique or ()), *(model or ()))
        from bench import api
        from reports.text import predicted

        found = api.fit(
            model or [],
            technique or [],
            cards=card or [],
            gpus=gpus,
            memory=memory,
            sequences=sequence or [],
            **task.plain(),
            check=check,
            show=predicted.tell_timing,
            show_check=predicted.tell_check,
        )
        if html is not None:
            html.write_text(found.html(), encoding="utf-8")
    typer.echo(json.dumps(found.plain(), indent=2) if output is Format.JSON else found.text())
    if html is not None:
        typer.echo(f"\npage: {html}", err=output is Format.JSON)
