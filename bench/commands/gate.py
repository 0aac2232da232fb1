"""`trainpace gate`: its options, and what they ask for."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bench import plugins
from bench.commands import gating
from bench.commands.console import (
    INTERRUPTED,
    Data,
    Device,
    LabelColumn,
    Plugins,
    TextColumn,
    fail,
    unwritten,
    usage_errors,
)
from bench.commands.gating import Job
from bench.composition import compose
from bench.spec import BASELINE, Phase, WorkloadSpec, parse_composition
from harness import contest
from harness.checkout import Checkout
from harness.nursery import ArmFailed, NurseryFailed
from harness.sides import Side
from harness.stored import Stored
from reports import calibrated, ci
from reports import gate as gate_report
from results import calibration, idle, kept, settings, store
from results.judgement import ExitCode, Judgement

BUDGET_S = 300.0
"""For each workload, unless the user says otherwise."""

Pair = tuple[str | None, str | None]
"""What is said of the base and of the head."""


def gate(
    model: Annotated[list[str] | None, typer.Option(help="As `run` takes it. May repeat.")] = None,
    base: Annotated[str | None, typer.Option(help="A git revision, or the folder of a run from before.")] = None,
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
    data: Data = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    setup: Annotated[str | None, typer.Option(help="A shell command to run first in each checkout.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is drawn. Default: a new one.")] = None,
    out: Annotated[Path, typer.Option(help="Where the folder of this gate is made.")] = Path("runs"),
) -> None:
    """Base against head, side by side: exit 0 pass, 1 regression, 2 usage, 3 inconclusive, 4 invalid."""
    with usage_errors(ExitCode.INVALID):
        asked = settings.find(Path.cwd())
        # Both sides have the same text, wherever their checkouts lie.
        there = str(Path(data).absolute()) if data and Path(data).exists() else data
        shape = WorkloadSpec(
            model="",
            phase=phase,
            batch=batch,
            sequence=sequence,
            corpus=there,
            text_column=text_column,
            label_column=label_column,
        )
        specs = tuple(replace(shape, model=name) for name in settings.merged_models(asked, model or ()))
        for file in plugin or ():
            plugins.load_file(file)
        ends = _ends((base, head), (base_python, head_python), (base_technique, head_technique))
        if slowdown and not calibrate:
            raise ValueError("--slowdown goes with --calibrate: it says what is put in")
        today = datetime.now(UTC).date()
        shares = {"tolerance": tolerance, "harm": harm, "memory": memory}
        # A workload with limits of its own has to be found: else whoever renames it would escape them.
        others = () if calibrate else asked.workloads
        named = dict.fromkeys([*(spec.name for spec in specs), *others])
        job = Job(
            specs=specs,
            device=device.value if device else None,
            limits={name: asked.limits(name, shares, today) for name in named},
            budget_s=(budget or asked.budget or BUDGET_S) * len(specs),
            modules=tuple(str(file) for file in plugin or ()),
            needs_checkout=any(ends.revisions) and not calibrate,
            acknowledged=tuple(settings.described(asked, today)),
            protocol=contest.PROTOCOL,
            stored=ends.stored,
        )
        seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        folder = _new_folder(out, "calibrate" if calibrate else "gate")
        ends = _twins(ends) if calibrate else ends
        with _no_other_exit(folder), gating.checkouts(ends.revisions, setup or asked.setup) as checkouts:
            sides = _sides(ends, checkouts)
            if calibrate:
                _calibrate(job, sides, gating.drawn_order(calibrate, slowdown, seed), seed, folder)
                return
            _check_different(ends, sides)
            verdict = gating.decide(job, sides, seed, folder, _show)
            _show("")
            typer.echo(f"{gate_report.text(verdict)}\n\ngate: {folder}")
            _tell_actions(verdict)
    raise typer.Exit(verdict.exit_code(strict=strict or asked.strict))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Base and head as the user names them. A revision that is None is the working tree; a `stored` run is the base."""

    revisions: tuple[str | None, str | None]
    pythons: tuple[str | None, str | None]
    techniques: tuple[tuple[str, ...], tuple[str, ...]]
    stored: Stored | None


def _ends(revisions: Pair, pythons: Pair, techniques: Pair) -> Ends:
    """Raises ValueError for techniques that are unknown or exclude each other, and for a run that cannot be read."""
    base, head = (_techniques(text) for text in techniques)
    stored = None
    if revisions[0] and store.has_records(Path(revisions[0])):
        folder = Path(revisions[0])
        label = "+".join(base) or BASELINE
        stored = Stored(
            name=str(folder),
            label=label,
            records=store.read(folder),
            machine=store.read_machine(folder),
            plan=store.read_plan(folder),
        )
        revisions = (None, revisions[1])
    return Ends(revisions=revisions, pythons=pythons, techniques=(base, head), stored=stored)


def _techniques(text: str | None) -> tuple[str, ...]:
    names = parse_composition(text) if text else ()
    compose(names)
    return names


def _twins(ends: Ends) -> Ends:
    """The base twice. Raises ValueError if anything is said of the head, or the base is a run from before."""
    if ends.stored or ends.revisions[1] or ends.pythons[1] or ends.techniques[1]:
        raise ValueError("--calibrate compares a base with itself: leave out what is said of the head, and stored runs")
    return Ends(
        revisions=(ends.revisions[0],) * 2,
        pythons=(ends.pythons[0],) * 2,
        techniques=(ends.techniques[0],) * 2,
        stored=None,
    )


def _environment(python: str) -> tuple[Path, Path]:
    """What tells environments apart: several names in one folder for one program are one."""
    return Path(python).parent, Path(python).resolve()


@contextmanager
def _no_other_exit(folder: Path) -> Iterator[None]:
    """Whatever else happens is no verdict: Python's own exit code for an error would say that one side is slower."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except (typer.Exit, ValueError, ArmFailed, NurseryFailed):
        raise
    except KeyboardInterrupt:
        fail(f"interrupted: no verdict{f'; what was measured is in {folder}' if folder.exists() else ''}", INTERRUPTED)
    except OSError as error:
        fail(f"{error}: no verdict", ExitCode.USAGE)
    except Exception as error:
        traceback.print_exc()
        fail(f"the gate itself failed: {type(error).__name__}: {error}", ExitCode.INVALID)
    finally:
        signal.signal(signal.SIGTERM, before)


def _new_folder(out: Path, kind: str) -> Path:
    """One that is not there yet, whoever began in the same second."""
    begun = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}"
    names = (out / (begun if count == 1 else f"{begun}-{count}") for count in itertools.count(1))
    return next(folder for folder in names if not folder.exists())


def _sides(ends: Ends, checkouts: Sequence[Checkout]) -> tuple[Side, Side]:
    base, head = (
        Side(name=name, python=_interpreter(name, python), checkout=checkout, techniques=chosen)
        for name, python, checkout, chosen in zip(
            ("base", "head"), ends.pythons, checkouts, ends.techniques, strict=True
        )
    )
    return base, head


def _interpreter(side: str, python: str | None) -> str:
    """The path of an interpreter, which a checkout's folder does not change. Raises ValueError if there is none."""
    if python is None:
        return sys.executable
    found = shutil.which(python)
    if found is None:
        raise ValueError(f"{side} python {python!r} cannot be run: give the path of an interpreter")
    return str(Path(found).absolute())


def _check_different(ends: Ends, sides: tuple[Side, Side]) -> None:
    """Raises ValueError where base and head are one: such a gate would pass whatever is wrong."""
    base, head = (
        (side.checkout.commit, side.checkout.dirty, _environment(side.python), set(side.techniques)) for side in sides
    )
    if ends.stored is None and base == head:
        raise ValueError(
            f"base and head are the same ({sides[0].checkout.describe()}, {sides[0].label}, one interpreter): give "
            "--base and --head, --base-python and --head-python or --base-technique and --head-technique; "
            "--calibrate compares a base with itself"
        )


def calibration_(
    file: Annotated[Path | None, typer.Argument(help="A file of outcomes. Default: all that this user has.")] = None,
) -> None:
    """Print what calibrations have found out about the gate and about runs, as Markdown."""
    with usage_errors():
        files = [file] if file else sorted(kept.folder().glob("*.jsonl"))
        if not files:
            raise ValueError(
                "nothing is calibrated yet: run `trainpace gate --calibrate 40` or `trainpace run --calibrate 10` "
                "with your --model"
            )
        for found in files:
            is_run = idle.is_in(found)
            shown = calibrated.of_runs(idle.read(found)) if is_run else calibrated.of_gates(calibration.read(found))
            typer.echo(f"machine {found.stem}\n\n{shown}\n")


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
    for line in calibrated.totals([outcome for _, outcome in found]):
        typer.echo(line)
    typer.echo(f"kept in {found[-1][0]}, the steps in {folder}")


def _tell_actions(verdict: Judgement) -> None:
    """On GitHub Actions, the annotations and the summary of the step."""
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
            typer.echo(f"trainpace: the step summary is missing: {unwritten(error)}", err=True)


def _show(text: str) -> None:
    """What is being done, on one line of a terminal; programs and logs are spared."""
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{text}", err=True, nl=False)
