"""`trainpace run`: its options, and what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import catalogue
from bench.cli.console import usage_errors
from bench.cli.options import Batch, Data, DeviceName, LabelColumn, Models, Plugins, Sequence, TextColumn
from bench.spec import Overrides, Phase, parse_composition


def run(
    plan: Annotated[str | None, typer.Argument(help="A named plan: see `trainpace list plans`.")] = None,
    model: Models = None,
    technique: Annotated[
        list[str] | None, typer.Option(help="A technique, or several joined by +. May repeat.")
    ] = None,
    device: DeviceName = None,
    phase: Annotated[Phase | None, typer.Option(help="Pretrain (the default), finetune or infer.")] = None,
    plugin: Plugins = None,
    batch: Batch = None,
    sequence: Sequence = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Least number of fresh processes an arm.")] = None,
    budget: Annotated[float | None, typer.Option(min=1, help="Seconds; more repetitions while they last.")] = None,
    data: Data = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    out: Annotated[Path, typer.Option(help="Where the run's own folder is made.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="The folder of an unfinished run to complete.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the arms and stop.")] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(min=1, help="Heats of idle copies of the baseline: how often is it wrong here?"),
    ] = None,
) -> None:
    """Measure a plan, or models under techniques, and render the report."""
    with usage_errors():
        overrides = Overrides(
            models=tuple(model or ()),
            compositions=tuple(parse_composition(text) for text in technique or ()),
            phase=phase,
            batch=batch,
            sequence=sequence,
            corpus=data,
            text_column=text_column,
            label_column=label_column,
            repetitions=repetitions,
            budget_s=budget,
        )
        if resume is not None and (plan or device or overrides != Overrides()):
            raise ValueError("--resume takes its plan from the run: leave out the plan and all that shapes it")
        if calibrate is not None and (technique or resume is not None):
            raise ValueError("--calibrate races idle copies of the baseline: leave out --technique and --resume")
        if not plugin:
            # What a plugin adds, only the registry knows.
            catalogue.check(overrides.compositions, plan)
        from bench.cli import calibrating, running
        from harness.prepare import prepare
        from reports import dry_run as shown

        # The fork server imports torch while this process does: both need it, and neither waits for the other.
        with running.nursery(plugin, calibrating.MODULES if calibrate else ()) as nursery:
            chosen = running.plan_of(resume) if resume else running.choose(nursery, plan or "quick", device, overrides)
            prepared = prepare(calibrating.rivals(chosen) if calibrate else chosen, nursery)
            if dry_run:
                typer.echo(shown.dry_run(prepared))
                return
            folder = resume or running.new_folder(out, prepared.plan.name)
            if calibrate:
                calibrating.calibrate(prepared.plan, nursery, calibrate, folder)
                return
            running.measure(nursery, prepared, folder)
        running.conclude(folder)
