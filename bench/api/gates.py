"""Gates: what is asked of one, and how it reaches its verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import catalogue, plugins, temporary
from bench.api import ends
from bench.api.ends import Ends
from bench.api.judging import Job, Show, calibrate, decide, drawn_order
from bench.spec import BASELINE, Phase, WorkloadSpec, parse_composition
from harness.ab import comparison
from harness.ab.checkout import Checkout, here, worktree
from harness.ab.sides import Side
from reports.text import gate as gate_report
from results import settings
from results.calibration import Outcome
from results.decision import Verdict
from results.exit_code import ExitCode
from results.judgement import Judgement
from results.settings import Settings

BUDGET_S = 300.0
"""Seconds per workload, unless the user or the team's settings say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The result of `gate`: the `judgement`, and the `folder` that holds it and every repetition. If `strict`, a pass
    that is only advisory does not count as a pass."""

    folder: Path
    judgement: Judgement
    strict: bool

    @property
    def verdict(self) -> Verdict:
        return self.judgement.verdict

    @property
    def exit_code(self) -> ExitCode:
        return self.judgement.exit_code(strict=self.strict)

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the report as Markdown."""
        return gate_report.markdown(self.judgement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a gate. `revisions`, `pythons` and `techniques` have a value for the base and one for the head:
    a git revision (for the base also the folder of an earlier run; None is the working tree), an interpreter (None:
    this one) and a composition of techniques.

    `shape` is what all models share besides their names. `shares` are tolerance, harm and memory; None means the team's
    settings or the defaults. `budget_s` is for each model.
    """

    models: tuple[str, ...] = ()
    shape: WorkloadSpec = dataclasses.field(default_factory=lambda: WorkloadSpec(model=""))
    revisions: ends.Pair = (None, None)
    pythons: ends.Pair = (None, None)
    techniques: ends.Compositions = ((), ())
    shares: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    budget_s: float | None = None
    device: str | None = None
    plugins: tuple[Path, ...] = ()
    setup: str | None = None
    seed: int | None = None
    strict: bool = False


def gate(
    *,
    models: Sequence[str] = (),
    base: str | None = None,
    head: str | None = None,
    base_python: str | None = None,
    head_python: str | None = None,
    base_technique: str | None = None,
    head_technique: str | None = None,
    tolerance: float | None = None,
    harm: float | None = None,
    memory: float | None = None,
    budget_s: float | None = None,
    device: str | None = None,
    phase: Phase = Phase.PRETRAIN,
    plugins: Sequence[str | Path] = (),
    batch: int | None = None,
    sequence: int | None = None,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    setup: str | None = None,
    seed: int | None = None,
    strict: bool = False,
    out: str | Path = "runs",
) -> Gate:
    """Compare base and head side by side and reach a verdict, as `trainpace gate` does.

    `models` are measured on both sides; by default those of the team's settings. `base` and `head` are git revisions;
    None is the working tree, and `base` may also be the folder of an earlier run. The sides may also differ in their
    interpreter (`base_python`, `head_python`) and in their techniques (`base_technique`, `head_technique`, several
    joined by +). `setup` is a shell command to run first in each checkout.

    A slow-down of more than `tolerance` is a regression, and a pass rules out one of `harm` or more. Peak memory may
    grow by the share `memory`. The limits are shares, such as 0.01; None takes those of the team's settings or the
    defaults. `budget_s` is in seconds per model. `strict` does not let a pass that is only advisory count as a pass.

    Returns the verdict and the new folder in `out` that holds every repetition. Raises ValueError for sides that cannot
    be compared at all.
    """
    shape = {"phase": phase, "batch": batch, "sequence": sequence}
    text = {"corpus": data, "text_column": text_column, "label_column": label_column}
    asked = Asked(
        models=tuple(models),
        shape=WorkloadSpec(model="", **shape, **text),  # type: ignore[arg-type]
        revisions=(base, head),
        pythons=(base_python, head_python),
        techniques=(parse_composition(base_technique or BASELINE), parse_composition(head_technique or BASELINE)),
        shares={"tolerance": tolerance, "harm": harm, "memory": memory},
        budget_s=budget_s,
        device=device,
        plugins=tuple(map(Path, plugins)),
        setup=setup,
        seed=seed,
        strict=strict,
    )
    return judged(asked, new_folder(Path(out), "gate"))


def judged(asked: Asked, folder: Path, show: Show = lambda text: None) -> Gate:
    """Measure until the verdict is reached, and keep it in `folder`. `show` receives a line on what is being done."""
    with opened(asked, is_calibration=False) as (job, sides, seed):
        judgement = decide(job, sides, seed, folder, show)
    return Gate(folder=folder, judgement=judgement, strict=asked.strict or settings.find(Path.cwd()).strict)


def calibrated_by(
    asked: Asked, count: int, slowdowns: Sequence[float] | None, folder: Path, show: Show
) -> Iterator[tuple[Path, Outcome, int]]:
    """Compare the base with itself `count` times, and slowed down on purpose. Yields the file in which each outcome is
    kept, the outcome, and how many there will be. The steps are kept in `folder`."""
    with opened(asked, is_calibration=True) as (job, sides, seed):
        shares = drawn_order(count, slowdowns, seed)
        for file, outcome in calibrate(job, sides, shares, seed=seed, folder=folder, show=show):
            yield file, outcome, len(shares) * len(job.limits)


@contextlib.contextmanager
def opened(asked: Asked, *, is_calibration: bool) -> Iterator[tuple[Job, tuple[Side, Side], int]]:
    """The job, its two sides in checkouts of their own, and the seed of all random choices."""
    if not asked.plugins:
        # Only the registry knows what a plugin adds.
        catalogue.check(asked.techniques)
    for file in asked.plugins:
        plugins.load_file(file)
    team = settings.find(Path.cwd())
    two = ends.read(asked.revisions, asked.pythons, asked.techniques)
    two = ends.twins(two) if is_calibration else two
    job = _job(asked, team, two, is_calibration=is_calibration)
    seed = random.SystemRandom().randrange(2**31) if asked.seed is None else asked.seed
    with checkouts(two.revisions, asked.setup or team.setup) as found:
        sides = ends.sides(two, found)
        if not is_calibration:
            ends.check_different(two, sides)
        yield job, sides, seed


def _job(asked: Asked, team: Settings, two: Ends, *, is_calibration: bool) -> Job:
    """What is compared. What was asked for takes precedence over the team's settings."""
    data = asked.shape.corpus
    # Both sides read the same text, wherever their checkouts are.
    there = str(Path(data).absolute()) if data and Path(data).exists() else data
    models = settings.merged_models(team, asked.models)
    specs = [dataclasses.replace(asked.shape, corpus=there, model=name) for name in models]
    today = datetime.now(UTC).date()
    # A workload with limits of its own must be measured: otherwise renaming it would escape them.
    named = dict.fromkeys([*(spec.name for spec in specs), *(() if is_calibration else team.workloads)])
    return Job(
        specs=tuple(specs),
        device=asked.device,
        limits={name: team.limits(name, asked.shares, today) for name in named},
        budget_s=(asked.budget_s or team.budget or BUDGET_S) * len(specs),
        modules=tuple(map(str, asked.plugins)),
        needs_checkout=any(two.revisions) and not is_calibration,
        acknowledged=tuple(settings.described(team, today)),
        protocol=comparison.PROTOCOL,
        stored=two.stored,
    )


def new_folder(out: Path, kind: str) -> Path:
    """A folder that does not exist yet, even if another gate started in the same second."""
    begun = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}"
    names = (out / (begun if count == 1 else f"{begun}-{count}") for count in itertools.count(1))
    return next(folder for folder in names if not folder.exists())


@contextlib.contextmanager
def checkouts(refs: Sequence[str | None], setup: str | None) -> Iterator[list[Checkout]]:
    """The revisions, each checked out to a folder of its own. None is the working tree as it is."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary.folder("checkouts"))
        yield [
            here() if ref is None else stack.enter_context(worktree(ref, folder / str(index), setup))
            for index, ref in enumerate(refs)
        ]
