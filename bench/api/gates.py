"""Gates: what is asked of one, and the verdict that it comes to."""

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
"""For each workload, unless the user says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A verdict, and the folder in which it is kept with every repetition. A `strict` one does not pass if it only
    advises."""

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
        """What a notebook shows."""
        return gate_report.markdown(self.judgement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a gate. Of base and head, in this order: a git revision (of the base also the folder of a run
    from before; None is the working tree), an interpreter (None: this one) and a composition of techniques.

    `shape` is what all models share beside their names; `shares` are tolerance, harm and memory, None where the team's
    settings or the usual ones hold; `budget_s` is for each model.
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
    """Base against head, side by side, as `trainpace gate` does; see there for what is asked.

    Raises ValueError for what cannot be compared at all.
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
    """The verdict, kept in `folder`. `show` receives a line on what is being done."""
    with opened(asked, is_calibration=False) as (job, sides, seed):
        judgement = decide(job, sides, seed, folder, show)
    return Gate(folder=folder, judgement=judgement, strict=asked.strict or settings.find(Path.cwd()).strict)


def calibrated_by(
    asked: Asked, count: int, slowdowns: Sequence[float] | None, folder: Path, show: Show
) -> Iterator[tuple[Path, Outcome, int]]:
    """Compare the base so often with itself, and slowed down on purpose; each outcome, where it is kept, and how many
    there will be. The steps are kept in `folder`."""
    with opened(asked, is_calibration=True) as (job, sides, seed):
        shares = drawn_order(count, slowdowns, seed)
        for file, outcome in calibrate(job, sides, shares, seed=seed, folder=folder, show=show):
            yield file, outcome, len(shares) * len(job.limits)


@contextlib.contextmanager
def opened(asked: Asked, *, is_calibration: bool) -> Iterator[tuple[Job, tuple[Side, Side], int]]:
    """The job, its two sides in checkouts of their own, and the seed of all that is drawn."""
    if not asked.plugins:
        # What a plugin adds, only the registry knows.
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
    """What is compared, by the team's settings and what was asked for, which comes first."""
    data = asked.shape.corpus
    # Both sides have the same text, wherever their checkouts lie.
    there = str(Path(data).absolute()) if data and Path(data).exists() else data
    models = settings.merged_models(team, asked.models)
    specs = [dataclasses.replace(asked.shape, corpus=there, model=name) for name in models]
    today = datetime.now(UTC).date()
    # A workload with limits of its own has to be found: else whoever renames it would escape them.
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
    """One that is not there yet, whoever began in the same second."""
    begun = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}"
    names = (out / (begun if count == 1 else f"{begun}-{count}") for count in itertools.count(1))
    return next(folder for folder in names if not folder.exists())


@contextlib.contextmanager
def checkouts(refs: Sequence[str | None], setup: str | None) -> Iterator[list[Checkout]]:
    """The revisions in folders of their own; None is the working tree as it is."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary.folder("checkouts"))
        yield [
            here() if ref is None else stack.enter_context(worktree(ref, folder / str(index), setup))
            for index, ref in enumerate(refs)
        ]
