"""`trainpace gate`: its options, and what they ask for."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bench import gating, plugins
from bench.composition import compose
from bench.console import INTERRUPTED, Device, Plugins, fail, usage_errors
from bench.gating import Job
from bench.spec import Phase, WorkloadSpec, parse_composition
from harness.checkout import Checkout
from harness.sides import Side
from reports import gate as gate_report
from results import calibration, settings
from results.judgement import ExitCode

BUDGET_S = 300.0
"""For each workload, unless the user says otherwise."""


def gate(
    model: Annotated[list[str] | None, typer.Option(help="As `run` takes it. May repeat.")] = None,
    base: Annotated[str | None, typer.Option(help="A git revision.")] = None,
    head: Annotated[str | None, typer.Option(help="A git revision. Default: the working tree.")] = None,
    base_python: Annotated[str | None, typer.Option(help="The interpreter of an environment.")] = None,
    head_python: Annotated[str | None, typer.Option(help="The interpreter of an environment.")] = None,
    base_technique: Annotated[str | None, typer.Option(help="A technique, or several joined by +.")] = None,
    head_technique: Annotated[str | None, typer.Option(help="A technique, or several joined by +.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Slower by more than this is a regression [0.01].")] = None,
    harm: Annotated[float | None, typer.Option(help="A pass is a proof of less than this [0.03].")] = None,
    memory: Annotated[float | None, typer.Option(help="By how much peak memory may grow [0.005].")] = None,
    budget: Annotated[float | None, typer.Option(min=1, help="Seconds for each model [300].")] = None,
    calibrate: Annotated[
        int | None, typer.Option(min=1, help="Compare the base with itself so often, and with slow-downs put in.")
    ] = None,
    slowdown: Annotated[
        list[float] | None, typer.Option(min=0.0, help="With --calibrate: just these, such as 0.05. May repeat.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A pass that only advises exits with 3.")] = False,
    device: Annotated[Device | None, typer.Option(help="Default: cuda where torch sees a GPU.")] = None,
    phase: Annotated[Phase, typer.Option(help="Pretrain, finetune or infer.")] = Phase.PRETRAIN,
    plugin: Plugins = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples of one update over all ranks.")] = None,
    sequence: Annotated[int | None, typer.Option(min=1, help="Tokens of one sample.")] = None,
    corpus: Annotated[str | None, typer.Option(help="A text file or folder. Default: Python's own sources.")] = None,
    setup: Annotated[str | None, typer.Option(help="A shell command to run first in each checkout.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is drawn. Default: a new one.")] = None,
    out: Annotated[Path, typer.Option(help="Where the folder of this gate is made.")] = Path("runs"),
) -> None:
    """Base against head, side by side: exit 0 pass, 1 regression, 2 usage, 3 inconclusive, 4 invalid."""
    with usage_errors(ExitCode.INVALID):
        asked = settings.find(Path.cwd())
        shares = {"tolerance": tolerance, "harm": harm, "memory": memory}
        specs = tuple(
            WorkloadSpec(model=name, phase=phase, batch=batch, sequence=sequence, corpus=corpus)
            for name in settings.merged_models(asked, model or ())
        )
        today = datetime.now(UTC).date()
        job = Job(
            specs=specs,
            device=device.value if device else None,
            limits={
                name: asked.limits(name, shares, today)
                for name in dict.fromkeys([*(spec.name for spec in specs), *asked.workloads])
            },
            budget_s=(budget or asked.budget or BUDGET_S) * len(specs),
            modules=tuple(str(file) for file in plugin or ()),
            needs_checkout=base is not None and calibrate is None,
        )
        for file in plugin or ():
            plugins.load_file(file)
        techniques = (_techniques(base_technique), _techniques(head_technique))
        seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        folder = out / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{'calibrate' if calibrate else 'gate'}"
        if calibrate:
            if head or head_python or head_technique:
                raise ValueError("--calibrate compares the base with itself: leave out what is said of the head")
            head, head_python, techniques = base, base_python, (techniques[0], techniques[0])
        with gating.checkouts((base, head), setup or asked.setup) as found:
            sides = _sides(found, (base_python, head_python), techniques)
            try:
                if calibrate:
                    _calibrate(job, sides, gating.drawn_order(calibrate, slowdown, seed), seed, folder)
                    return
                _check_different(sides)
                verdict = gating.decide(job, sides, seed, folder, _show)
            except KeyboardInterrupt:
                fail(f"interrupted: no verdict; what was measured is in {folder}", INTERRUPTED)
    for line in ["", gate_report.text(verdict), *settings.described(asked, today), "", f"gate: {folder}"]:
        typer.echo(line)
    raise typer.Exit(verdict.exit_code(strict=strict or asked.strict))


def _techniques(text: str | None) -> tuple[str, ...]:
    names = parse_composition(text) if text else ()
    compose(names)
    return names


def _sides(
    checkouts: Sequence[Checkout], pythons: tuple[str | None, str | None], techniques: Sequence[tuple[str, ...]]
) -> tuple[Side, Side]:
    base, head = (
        Side(name=name, python=python or sys.executable, checkout=checkout, techniques=chosen)
        for name, python, checkout, chosen in zip(("base", "head"), pythons, checkouts, techniques, strict=True)
    )
    return base, head


def _check_different(sides: tuple[Side, Side]) -> None:
    """Raises ValueError where base and head are one: such a gate would pass whatever is wrong."""
    identities = [
        (side.checkout.commit, side.checkout.dirty, Path(side.python).absolute(), set(side.techniques))
        for side in sides
    ]
    if identities[0] == identities[1]:
        raise ValueError(
            f"base and head are the same ({sides[0].checkout.describe()}, {sides[0].label}, one interpreter): give "
            "--base and --head, --base-python and --head-python or --base-technique and --head-technique; "
            "--calibrate compares a base with itself"
        )


def _calibrate(job: Job, sides: tuple[Side, Side], shares: Sequence[float], seed: int, folder: Path) -> None:
    found = []
    for file, outcome in gating.calibrate(job, sides, shares, seed=seed, folder=folder, show=_show):
        found.append((file, outcome))
        _show("")
        ratio = "unknown" if outcome.ratio is None else f"{outcome.ratio:.3f}x"
        typer.echo(
            f"{len(found)}/{len(shares) * len(job.limits)}  {outcome.workload}  slow-down {outcome.slowdown:.1%}: "
            f"{outcome.verdict}  {ratio}  {outcome.repetitions} repetitions  {outcome.seconds:.0f} s"
        )
    for line in gate_report.calibration(calibration.calibrated([outcome for _, outcome in found])):
        typer.echo(line)
    typer.echo(f"kept in {found[-1][0]}, the steps in {folder}")


def _show(text: str) -> None:
    """What is being done, on one line of a terminal; programs and logs are spared."""
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{text}", err=True, nl=False)
