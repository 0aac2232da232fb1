"""`trainpace run`: its options, and what they ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import NOTHING_MEASURED, fail, usage_errors
from bench.cli.options import Models, RecipeFile, Workload, grouped
from bench.recipe import read as read_recipe
from bench.spec import Overrides, parse_composition

if TYPE_CHECKING:
    from bench.api import Run
    from harness.hosts.leader import Listening
    from harness.preparation.prepared import Prepared
    from harness.processes.fork_server import ForkServer
    from results.remote import Remote


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Over which machines: arms over several that join this one, or heats over those of a cluster."""

    on: Annotated[
        str | None, typer.Option(help="A cluster whose machines share the heats: ray://HOST:PORT, auto or slurm.")
    ] = None
    hosts: Annotated[
        int | None, typer.Option(min=2, help="Over how many machines to spread an arm's ranks, this one included.")
    ] = None
    listen: Annotated[str, typer.Option(help="HOST:PORT where the other machines join.")] = "0.0.0.0:29500"
    token_file: Annotated[
        Path, typer.Option(help="The file with the token that the other machines show; created if missing.")
    ] = Path("trainpace.token")
    ranks_per_host: Annotated[
        int | None, typer.Option(min=1, help="Ranks on each host. Default: one per GPU, or one without a GPU.")
    ] = None

    def check(self) -> None:
        """Raises ValueError for what does not go together, before anything that takes seconds to import."""
        if self.hosts is None and self.ranks_per_host is not None:
            raise ValueError("--ranks-per-host only works on several machines: give --hosts too")
        if self.hosts is not None and self.on is not None:
            raise ValueError("--on gives whole heats to machines, --hosts spreads arms over them: give only one")
        if self.on is not None:
            from bench.api import cluster

            cluster.check(self.on)

    def listening(self) -> Listening | None:
        """What to wait for; None on this machine alone."""
        from harness.hosts import wire
        from harness.hosts.leader import Listening

        if self.hosts is None:
            return None
        address = wire.address(self.listen)
        return Listening(
            others=self.hosts - 1, address=address, token_file=self.token_file, ranks_each=self.ranks_per_host
        )


@grouped
def run(
    *,
    plan: Annotated[str | None, typer.Argument(help="A named plan: see `trainpace list plans`.")] = None,
    model: Models = None,
    technique: Annotated[
        list[str] | None, typer.Option(help="A technique, or several joined by +. Can be repeated.")
    ] = None,
    recipe: RecipeFile = None,
    workload: Workload,
    repetitions: Annotated[int | None, typer.Option(min=1, help="The least number of repetitions per arm.")] = None,
    budget: Annotated[float | None, typer.Option(min=1, help="Seconds; repetitions are added while they last.")] = None,
    out: Annotated[str, typer.Option(help="Where to create the run's folder: a path, or a URL (s3://...).")] = "runs",
    resume: Annotated[str | None, typer.Option(help="The folder, or URL, of an unfinished run to complete.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the arms and the memory that each will take, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON, one object per arm.")] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(min=1, help="Race idle copies of the baseline in this many heats: how often are verdicts wrong?"),
    ] = None,
    spread: Spread,
) -> None:
    """Measure a plan, or models under techniques, and render the report."""
    with usage_errors():
        overrides = workload.overrides(
            models=tuple(model or ()),
            compositions=tuple(parse_composition(text) for text in technique or ()),
            repetitions=repetitions,
            budget_s=budget,
        )
        if recipe is not None:
            found = read_recipe(recipe)
            overrides = overrides.over(found.workload, found.techniques)
        if resume is not None and (plan or workload.device or overrides != Overrides()):
            raise ValueError("--resume takes its plan from the run: leave out the plan and the options that change it")
        if budget is not None and spread.on is not None:
            raise ValueError("--on measures a fixed number of repetitions: leave out --budget, and give --repetitions")
        if calibrate is not None and spread.on is not None:
            raise ValueError("--calibrate measures this machine: leave out --on")
        if calibrate is not None and (technique or resume is not None):
            raise ValueError("--calibrate races idle copies of the baseline: leave out --technique and --resume")
        if as_json and not dry_run:
            raise ValueError(
                "--json only works with --dry-run: give both; for a finished run use `trainpace compare --format json`"
            )
        spread.check()
        workload.check(overrides.compositions, *overrides.models, plan=plan)
        from bench.api import keeping, runs
        from bench.api.cluster import leading
        from bench.cli import calibrating
        from results.folders import here

        with runs.prepared(
            plan or "quick",
            overrides,
            device=workload.place,
            plugins=workload.plugins,
            modules=calibrating.MODULES if calibrate else (),
            change=calibrating.rivals if calibrate else lambda plan: plan,
            resume=None if resume is None else here(resume),
            listening=spread.listening(),
        ) as (fork_server, prepared):
            if dry_run:
                _print_plan(prepared, fork_server, as_json=as_json)
                return
            folder, there = keeping.place(out, prepared.plan.name, resume)
            if calibrate:
                calibrating.calibrate(prepared.plan, fork_server, calibrate, folder)
                return
            if spread.on is None:
                made = runs.measure(fork_server, prepared, folder, there=there)
            else:
                engine = leading.engine(spread.on, folder)
                made = leading.measure(engine, prepared, folder, on=spread.on, plugins=workload.plugins, there=there)
        _conclude(made, there)


def _print_plan(prepared: Prepared, fork_server: ForkServer, *, as_json: bool) -> None:
    """Print what would run, and what it would take."""
    from harness.preparation.forecast import forecast, without_those_that_do_not_fit
    from harness.preparation.narrowing import narrowed
    from harness.preparation.pacing import paces_of
    from reports.text import dry_run, predicted

    forecasts = forecast(prepared, fork_server)
    paces = paces_of(without_those_that_do_not_fit(prepared, forecasts), fork_server, predicted.tell_timing)
    prepared, left_out = narrowed(prepared, paces)
    if as_json:
        typer.echo(json.dumps(dry_run.as_json(prepared, forecasts, paces), indent=2))
    else:
        typer.echo(dry_run.dry_run(prepared, forecasts, paces, left_out))


def _conclude(made: Run, there: Remote | None) -> None:
    """Print the comparison and say where it and the report are."""
    from bench.cli import comparing
    from harness.record import Status
    from reports.text import machines, predicted
    from reports.wording import sentences
    from results import summaries
    from results.machines import side_by_side

    comparisons = summaries.told(made.folder).comparisons
    comparing.print_table(comparisons)
    beside = machines.render(side_by_side(made.records, made.machines))
    said = [sentences.answer(comparisons), predicted.errors(comparisons), beside]
    typer.echo("\n".join(filter(None, said)))
    where = there.url if there else made.folder
    typer.echo(f"\nrun:    {where}\nreport: {made.folder / 'report.html'}")
    if any(row.status in (Status.CRASHED, Status.OOM, Status.DIVERGED, Status.TIMEOUT) for row in comparisons):
        typer.echo(f"log:    {made.folder / 'arms.log'}, with the full tracebacks")
    if not any(row.status is Status.OK for row in comparisons):
        fail("no arm finished: the report says why", NOTHING_MEASURED)
