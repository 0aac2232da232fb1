"""Whether a change is worth keeping: from two sides to a verdict, and the ledger of all verdicts."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import __version__
from bench.api import gates
from bench.api.asking import GOES_ON, LEAST_UPDATES
from bench.api.gates import Asked, new_folder
from bench.api.judging import Job, Show
from bench.api.kept import Kept
from bench.composition import compose
from harness.ab.checkout import here
from harness.ab.comparison import Comparison
from harness.ab.matching import Matched
from harness.ab.pair import Pair
from harness.ab.sides import Home, Side
from harness.learning.curve import Asked as Wanted
from harness.learning.curve import Training
from harness.learning.training import THREADS_COST, Trainings, divided
from harness.record import Record, Status
from results import proposal, store
from results import worth as outcome
from results.gate import log_ratio, unfit
from results.online import Entry, Ledger
from results.pace import step_time_s
from results.proposal import EXACT, Mean, Proposal, Verdict

SAME = ("batch", "sequence")
"""What both sides of a workload share: a proposal may change the model."""


def judge(
    asked: Asked,
    *,
    minutes: float = 10.0,
    seeds: int = 8,
    repetitions: int = 6,
    updates: int | None = None,
    ledger: Path,
    out: Path = Path("runs"),
    show: Show = lambda text: None,
) -> tuple[Path, Proposal]:
    """Judge a change by how long the head takes to reach the loss of the base, as `trainpace judge` does.

    `minutes` limits the time, `seeds` and `repetitions` are the numbers of trainings and of timed pairs, and `updates`
    is how long the base trains (None: as long as there is time for). The verdict is entered in the `ledger`, and kept
    in a new folder in `out` with all that it is based on.

    Returns the folder and the verdict. Raises ValueError for sides that cannot be compared at all.
    """
    known = Ledger.read(ledger)
    begun_s = time.monotonic()
    folder = new_folder(out, "judge")
    with gates.opened(asked, is_calibration=False) as (job, sides, seed):
        if len(job.specs) != 1:
            raise ValueError(f"{len(job.specs)} models are named: give one --model to judge a change by")
        if job.stored is not None:
            raise ValueError("a stored run has no code to train with: give a git revision as --base")
        judging = _Judging(job, sides, seed, folder=folder, ledger=known, show=show)
        made = judging.verdict(minutes=minutes, seeds=seeds, repetitions=repetitions, updates=updates)
        made = dataclasses.replace(made, seconds=time.monotonic() - begun_s)
    if made.p is not None:
        _enter(made, known, ledger)
    proposal.write(made, folder / "judge.json")
    return folder, made


def _enter(made: Proposal, known: Ledger, file: Path) -> None:
    assert made.p is not None
    entry = Entry(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        base=made.base,
        head=made.head,
        workload=made.workload,
        p=made.p,
        level=made.level,
        kept=made.verdict is Verdict.KEEP,
        seeds=(made.first_seed, made.seeds),
    )
    known.with_entry(entry).write(file)


class _Judging:
    """From two sides to a verdict."""

    def __init__(
        self, job: Job, sides: tuple[Side, Side], seed: int, *, folder: Path, ledger: Ledger, show: Show
    ) -> None:
        self._job, self._sides, self._folder, self._ledger, self._show = job, sides, folder, ledger, show
        self._comparison = Comparison(
            sides,
            elsewhere=here().top,
            seed=seed,
            log=(folder / "arms.log").resolve(),
            show=show,
            modules=job.modules,
            protocol=job.protocol,
        )

    def verdict(self, *, minutes: float, seeds: int, repetitions: int, updates: int | None) -> Proposal:
        end_s = time.monotonic() + 60 * minutes
        with self._comparison as comparison:
            matched = comparison.match(self._job.specs, self._job.device, self._folder.name, SAME)
            self._folder.mkdir(parents=True)
            for name, reason in matched.missing.items():
                return self._told(name, Verdict.INVALID, reason)
            ((name, _),) = matched.entries.items()
            pairs = self._pairs(comparison, matched, repetitions, end_s)
            good = [pair for pair in pairs if not pair.disturbed]
            if problems := [problem for pair in pairs for problem in self._unfit(pair)]:
                return self._told(name, Verdict.INVALID, problems[0])
            if len(good) < 2:
                return self._told(name, Verdict.INVALID, f"{len(pairs) - len(good)} repetitions were disturbed")
            steps = proposal.mean([log_ratio(pair) for pair in good])
            if self._learns_alike(good):
                return self._decided(name, steps, EXACT, repetitions=len(good))
            base_s = step_time_s(good[0].base) or 0.0
            head_s = step_time_s(good[0].head) or 0.0
            if updates is None:
                each_s = THREADS_COST * GOES_ON * seeds * (base_s + head_s)
                updates = int((end_s - time.monotonic()) / each_s)
            if updates < LEAST_UPDATES:
                raise ValueError(
                    f"{minutes:g} minutes leave {updates} updates for each of {seeds} seeds: give more --minutes, or "
                    "fewer --seeds"
                )
            target, by_side = self._trained(matched, comparison.homes(), seeds, updates)
        return self._learnt(name, steps, target, by_side, updates, repetitions=len(good))

    def _pairs(self, comparison: Comparison, matched: Matched, repetitions: int, end_s: float) -> list[Pair]:
        """`repetitions` undisturbed pairs, or as many as there is time for. When to stop does not depend on the
        measured times."""

        def referee(pairs: Sequence[Pair]) -> Collection[str]:
            done = sum(not pair.disturbed for pair in pairs) >= repetitions or len(pairs) >= 2 * repetitions
            return [] if done or any(map(self._unfit, pairs)) else list(matched.entries)

        left_s = end_s - time.monotonic()
        return comparison.run(matched, referee, budget_s=left_s, keep=lambda pair: self._keep(pair, matched))

    def _keep(self, pair: Pair, matched: Matched) -> None:
        place = self._folder / "disturbed" if pair.disturbed else self._folder
        for side, record in (("base", pair.base), ("head", pair.head)):
            store.write(record, place / side, machine=matched.machines[side], plan=matched.plans[side])

    def _unfit(self, pair: Pair) -> list[str]:
        """Why a pair cannot decide anything. That the head trains differently from the base is not a reason here."""
        return unfit(dataclasses.replace(pair, head=_excused(pair.head)), self._job.needs_checkout)

    def _learns_alike(self, pairs: Sequence[Pair]) -> bool:
        """Whether a replay has shown that the head has the losses and gradients of the base, and both sides declare
        nothing but changed numerics."""
        declared = [item for side in self._sides for item in compose(side.techniques)]
        replayed = any(pair.head.certificate and pair.head.certificate.first_losses for pair in pairs)
        is_equal = all(pair.head.status is Status.OK for pair in pairs)
        return replayed and is_equal and all(item.is_numerics_only for item in declared)

    def _trained(
        self, matched: Matched, homes: Sequence[Home], seeds: int, updates: int
    ) -> tuple[float | None, dict[str, list[Training]]]:
        """The target loss, which is the base's after `updates`, and by side the trainings that continue until they
        reach it. Both sides train on the same seeds, none of which was used before."""
        (entry,) = matched.entries.values()
        kept = {home.side.name: Kept(self._folder / home.side.name, home.side.name) for home in homes}
        target: float | None = None
        for home in (homes[0], *homes):
            name = home.side.name
            reached = {item.asked.seed for item in kept[name].all() if target and outcome.reaches(item, target)}
            own, _ = divided(entry, home.fork_server)
            wanted = [
                Wanted(techniques=home.side.techniques, seed=seed, rate=1.0, updates=updates, until_loss=target)
                for seed in range(self._ledger.next_seed, self._ledger.next_seed + seeds)
                if seed not in reached
            ]
            self._show(f"{entry.spec.name}: training {name}{'' if target is None else f' to {target:.3f}'}")
            trainings = Trainings(matched.host, own, home.fork_server, self._folder / "arms.log")
            kept[name].train(trainings, wanted, lambda _: None)
            if target is None:
                target = _after(kept[name].all(), updates)
            if target is None:
                break
        return target, {name: outcome.longest(item.all()) for name, item in kept.items()}

    def _learnt(
        self,
        name: str,
        steps: Mean,
        target: float | None,
        by_side: Mapping[str, list[Training]],
        updates: int,
        *,
        repetitions: int,
    ) -> Proposal:
        base, head, seeds = by_side["base"], by_side["head"], len(by_side["base"])
        if cheat := outcome.invalid(head, base):
            return self._told(name, Verdict.INVALID, f"the head's losses say nothing: {cheat}", seeds=seeds)
        if target is None:
            failed = next((item.reason for item in base if item.reason), "no training of the base got far enough")
            return self._told(name, Verdict.INVALID, str(failed), seeds=seeds)
        losses = {"base": target, "head": _after(head, updates)}
        ratios, is_late = _ratios(base, head, target)
        return self._decided(
            name,
            steps,
            proposal.mean(ratios),
            repetitions=repetitions,
            seeds=seeds,
            is_late=is_late,
            target=target,
            losses=losses,
        )

    def _decided(
        self,
        name: str,
        steps: Mean,
        learnt: Mean,
        *,
        repetitions: int,
        seeds: int = 0,
        is_late: bool = False,
        target: float | None = None,
        losses: dict[str, float | None] | None = None,
    ) -> Proposal:
        whole = proposal.total(steps, learnt)
        said, reason = proposal.verdict(whole, self._ledger.level, is_late=is_late)
        return dataclasses.replace(
            self._told(name, said, reason, seeds=seeds),
            p=1.0 if is_late else proposal.p_gain(whole),
            time_ratio=proposal.ratio(whole),
            updates_ratio=proposal.ratio(learnt),
            step_ratio=proposal.ratio(steps),
            target_loss=target,
            base_loss=(losses or {}).get("base"),
            head_loss=(losses or {}).get("head"),
            learns_alike=learnt is EXACT,
            repetitions=repetitions,
        )

    def _told(self, name: str, said: Verdict, reason: str, *, seeds: int = 0) -> Proposal:
        base, head = (f"{side.checkout.describe()}, {side.label}" for side in self._sides)
        return Proposal(
            workload=name,
            base=base,
            head=head,
            verdict=said,
            reasons=(reason,),
            level=self._ledger.level,
            first_seed=self._ledger.next_seed,
            seeds=seeds,
            judged_before=len(self._ledger.entries),
            seconds=0.0,
            version=__version__,
        )


def _excused(head: Record) -> Record:
    return dataclasses.replace(head, status=Status.OK) if head.status is Status.UNEQUAL_WORK else head


def _after(trainings: Sequence[Training], updates: int) -> float | None:
    """The median loss of the seeds after this many updates."""
    losses = [loss for item in trainings if (loss := outcome.loss_after(item, updates)) is not None]
    return statistics.median(losses) if losses else None


def _ratios(base: Sequence[Training], head: Sequence[Training], target: float) -> tuple[list[float], bool]:
    """For each seed, ln(head / base) of the updates to the loss; and whether the head failed to reach it on any seed. A
    training that did not reach it counts with its last update."""
    taken = {item.asked.seed: _updates(item, target) for item in base}
    ratios = [_updates(item, target) - taken[item.asked.seed] for item in head if item.asked.seed in taken]
    return ratios, not all(outcome.reaches(item, target) for item in head)


def _updates(training: Training, target: float) -> float:
    return math.log(outcome.crossing(training, target) or training.asked.most_updates)
