"""`trainpace gate`: its options, and what they ask for."""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.causes import unwritten
from bench.cli.console import INTERRUPTED, fail, usage_errors
from bench.cli.options import Models, RecipeFile, Workload, grouped
from bench.recipe import read as read_recipe
from bench.spec import BASELINE, WorkloadSpec, parse_composition
from harness.processes.failures import ArmFailed, ForkServerFailed
from results.exit_code import ExitCode

if TYPE_CHECKING:
    from bench.api.gates import Asked
    from results.judgement import Judgement


@grouped
def gate(
    *,
    model: Models = None,
    base: Annotated[str | None, typer.Option(help="A git revision, or the folder of an earlier run.")] = None,
    head: Annotated[str | None, typer.Option(help="A git revision. Default: the working tree.")] = None,
    base_python: Annotated[str | None, typer.Option(help="The Python interpreter to run the base with.")] = None,
    head_python: Annotated[str | None, typer.Option(help="The Python interpreter to run the head with.")] = None,
    base_technique: Annotated[str | None, typer.Option(help="A technique, or several joined by +.")] = None,
    head_technique: Annotated[str | None, typer.Option(help="A technique, or several joined by +.")] = None,
    recipe: RecipeFile = None,
    tolerance: Annotated[float | None, typer.Option(help="Slower by more than this is a regression [0.01].")] = None,
    harm: Annotated[float | None, typer.Option(help="The slow-down that a pass rules out [0.03].")] = None,
    memory: Annotated[float | None, typer.Option(help="How much peak memory may grow [0.005].")] = None,
    budget: Annotated[float | None, typer.Option(min=1, help="Seconds for each model [300].")] = None,
    calibrate: Annotated[
        int | None, typer.Option(min=1, help="Compare the base with itself this many times, with added slow-downs.")
    ] = None,
    slowdown: Annotated[
        list[float] | None,
        typer.Option(min=0.0, help="With --calibrate: add only this slow-down, such as 0.05. Can be repeated."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if a pass is only advisory.")] = False,
    workload: Workload,
    setup: Annotated[str | None, typer.Option(help="A shell command to run first in each checkout.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for all random choices. Default: a new one.")] = None,
    out: Annotated[Path, typer.Option(help="Where to create the folder for this gate.")] = Path("runs"),
) -> None:
    """Compare base and head side by side: exit 0 pass, 1 regression, 2 usage, 3 inconclusive, 4 invalid."""
    with usage_errors(ExitCode.INVALID):
        shape = WorkloadSpec(model="")
        if recipe is not None:
            found = read_recipe(recipe)
            model, shape = model or [found.workload.model], dataclasses.replace(found.workload, model="")
            base_technique, head_technique = base_technique or found.label, head_technique or found.label
        techniques = parse_composition(base_technique or BASELINE), parse_composition(head_technique or BASELINE)
        if slowdown and not calibrate:
            raise ValueError("--slowdown only works with --calibrate: give both")
        workload.check(techniques, *(model or ()))
        from bench.api.gates import Asked, judged, new_folder
        from reports.text import gate as gate_report

        asked = Asked(
            models=tuple(model or ()),
            shape=workload.over(shape),
            revisions=(base, head),
            pythons=(base_python, head_python),
            techniques=techniques,
            shares={"tolerance": tolerance, "harm": harm, "memory": memory},
            budget_s=budget,
            device=workload.place,
            plugins=workload.plugins,
            setup=setup,
            seed=seed,
            strict=strict,
        )
        folder = new_folder(out, "calibrate" if calibrate else "gate")
        with _no_other_exit(folder):
            if calibrate:
                _calibrate(asked, calibrate, slowdown, folder)
                return
            made = judged(asked, folder, _show)
            _show("")
            typer.echo(f"{gate_report.text(made.judgement)}\n\ngate: {folder}")
            _tell_actions(made.judgement)
    raise typer.Exit(made.exit_code)


@contextmanager
def _no_other_exit(folder: Path) -> Iterator[None]:
    """Whatever else happens is no verdict: Python's own exit code for an error would say that one side is slower."""

    try:
        yield
    except (typer.Exit, ValueError, ArmFailed, ForkServerFailed):
        raise
    except KeyboardInterrupt:
        fail(f"interrupted: no verdict{f'; what was measured is in {folder}' if folder.exists() else ''}", INTERRUPTED)
    except OSError as error:
        fail(f"{error}: no verdict", ExitCode.USAGE)
    except Exception as error:
        traceback.print_exc()
        fail(f"the gate itself failed: {type(error).__name__}: {error}", ExitCode.INVALID)


def _calibrate(asked: Asked, count: int, slowdowns: Sequence[float] | None, folder: Path) -> None:
    from bench.api.gates import calibrated_by
    from reports.text import calibrated

    found, kept = [], folder
    for file, outcome, total in calibrated_by(asked, count, slowdowns, folder, _show):
        kept = file
        found.append(outcome)
        _show("")
        ratio = "unknown" if outcome.ratio is None else f"{outcome.ratio:.3f}x"
        typer.echo(
            f"{len(found)}/{total}  {outcome.workload}  slow-down {outcome.slowdown:.1%}: "
            f"{outcome.verdict}  {ratio}  {outcome.repetitions} repetitions  {outcome.seconds:.0f} s"
        )
    for line in calibrated.totals(found):
        typer.echo(line)
    typer.echo(f"results: {kept}, steps: {folder}")


def _tell_actions(verdict: Judgement) -> None:
    """On GitHub Actions, the annotations and the summary of the step."""
    from reports.formats import ci
    from reports.text import gate as gate_report

    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in ci.github(verdict):
            typer.echo(line)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(gate_report.markdown(verdict))
        except OSError as error:
            # The verdict is reached, and its exit code is what counts.
            typer.echo(f"trainpace: could not write the step summary: {unwritten(error)}", err=True)


def _show(text: str) -> None:
    """What is being done, on one line of a terminal; programs and logs are spared."""
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{text}", err=True, nl=False)
