"""How a gate is carried out: from two sides to a stored verdict, or to a calibration of this machine."""

from __future__ import annotations

import dataclasses
import math
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import __version__
from bench.spec import Protocol, WorkloadSpec
from harness.ab.checkout import here
from harness.ab.comparison import Comparison
from harness.ab.matching import Matched
from harness.ab.pair import Pair
from harness.ab.sides import Side
from harness.ab.stored import DISTURBED, Stored
from reports.formats import ci
from reports.text import gate as gate_report
from results import calibration, judgement, store
from results.calibration import Outcome, calibrated, why_advisory
from results.gate import Finding, Limits, Referee, log_ratio, overall
from results.judgement import Judgement

SLOWDOWNS = (0.02, 0.03, 0.05)
"""The slow-downs that a calibration adds, besides none."""

SLOWED_SHARE = 0.3
"""Comparisons with each slow-down, as a share of those of the base with itself."""

LONG_AGO = "the base was measured earlier: whatever has changed on the machine since then is part of the ratio"

Show = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is compared, whatever the sides are. `limits` has every workload that must be measured, by name.

    `budget_s` is for all workloads together. `modules` are plugins. `acknowledged` lists the slow-downs that the limits
    already allow. `needs_checkout` says that the code of the checkouts is what is compared. A `stored` run takes the
    place of the base.
    """

    specs: tuple[WorkloadSpec, ...]
    device: str | None
    limits: Mapping[str, Limits]
    budget_s: float
    modules: tuple[str, ...]
    needs_checkout: bool
    acknowledged: tuple[str, ...]
    protocol: Protocol
    stored: Stored | None = None


def decide(job: Job, sides: tuple[Side, Side], seed: int, folder: Path, show: Show) -> Judgement:
    """Measure until the verdict is reached, keep it and every repetition in `folder`, and return it.

    Raises ValueError for what cannot be compared at all, and for a calibration that cannot be read.
    """
    started = datetime.now(UTC)
    begun = time.monotonic()
    with _comparison(job, sides, seed, folder, show) as comparison:
        matched = comparison.match(job.specs, job.device, folder.name)
        machine = matched.machines["head"]
        known = calibrated(calibration.load(machine.machine_id, job.limits.values()))
        folder.mkdir(parents=True)
        left_s = job.budget_s - (time.monotonic() - begun)
        pairs, findings = _measure(job, comparison, matched, folder, budget_s=left_s)
    verdict = Judgement(
        verdict=overall(findings),
        advisory=LONG_AGO if job.stored else why_advisory(known),
        sides={side.name: _described(side, matched, job.stored) for side in sides},
        findings=tuple(findings),
        acknowledged=job.acknowledged,
        calibration=known,
        machine_id=machine.machine_id,
        device=machine.device,
        device_name=machine.device_name,
        unseen=pairs[-1].unseen if pairs else (),
        seed=seed,
        started_at=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - begun,
        version=__version__,
        command=shlex.join(["trainpace", *sys.argv[1:]]),
    )
    judgement.write(verdict, folder / "gate.json")
    (folder / "gate.md").write_text(gate_report.markdown(verdict), encoding="utf-8")
    (folder / "junit.xml").write_text(ci.junit(verdict), encoding="utf-8")
    return verdict


def _comparison(job: Job, sides: tuple[Side, Side], seed: int, folder: Path, show: Show) -> Comparison:
    log = (folder / "arms.log").resolve()
    return Comparison(
        sides,
        stored=job.stored,
        elsewhere=here().top,
        seed=seed,
        log=log,
        show=show,
        modules=job.modules,
        protocol=job.protocol,
    )


def _measure(
    job: Job, comparison: Comparison, matched: Matched, folder: Path, *, budget_s: float
) -> tuple[list[Pair], list[Finding]]:
    absent = dict.fromkeys(job.limits, "it was not measured: the settings have limits for it, but it was not named")
    missing = {name: reason for name, reason in absent.items() if name not in matched.entries} | dict(matched.missing)
    referee = Referee(job.limits, missing, needs_checkout=job.needs_checkout)
    pairs = comparison.run(matched, referee, budget_s=budget_s, keep=lambda pair: _keep(pair, matched, folder))
    return pairs, referee.conclude(pairs)


def _keep(pair: Pair, matched: Matched, folder: Path) -> None:
    """Store each measured side as a run of its own, which other commands can read. Disturbed repetitions are kept
    apart."""
    for name, record in (("base", pair.base), ("head", pair.head)) if pair.together else (("head", pair.head),):
        place, plan = folder / name, matched.plans[name]
        if pair.disturbed:
            place, plan = folder / "disturbed" / name, dataclasses.replace(plan, name=DISTURBED)
        store.write(record, place, machine=matched.machines[name], plan=plan)


def _described(side: Side, matched: Matched, stored: Stored | None) -> str:
    """Describe the side in words. Of its packages, name torch and those that the other side lacks or has in another
    version."""
    machine = matched.machines[side.name]
    if stored is not None and side.name == "base":
        commit = f", commit {machine.git_commit[:10]}" if machine.git_commit else ""
        return f"run {stored.name}{commit}, {side.label}"
    everywhere = [other.packages for other in matched.machines.values()]
    names = sorted({name for packages in everywhere for name in packages})
    told = ["torch", *(name for name in names if len({packages.get(name) for packages in everywhere}) > 1)]
    software = [f"{name} {machine.packages.get(name, 'missing')}" for name in dict.fromkeys(told)]
    return ", ".join([side.checkout.describe(), side.label, f"Python {machine.python}", *software])


def calibrate(
    job: Job, twins: tuple[Side, Side], shares: Sequence[float], *, seed: int, folder: Path, show: Show
) -> Iterator[tuple[Path, Outcome]]:
    """Compare a side with its twin, slowed down by each of these shares, and keep the outcomes for this machine.

    Yields the file in which each outcome is kept, and the outcome.
    """
    for index, share in enumerate(shares):
        begun = time.monotonic()
        own = folder / f"{index:04}"
        sides = (twins[0], dataclasses.replace(twins[1], slowdown=share))
        with _comparison(job, sides, seed + index, own, show) as comparison:
            matched = comparison.match(job.specs, job.device, own.name)
            own.mkdir(parents=True)
            left_s = job.budget_s - (time.monotonic() - begun)
            pairs, findings = _measure(job, comparison, matched, own, budget_s=left_s)
        for finding in findings:
            outcome = _outcome(finding, pairs, share, time.monotonic() - begun)
            yield calibration.append(matched.machines["base"].machine_id, outcome), outcome


def drawn_order(count: int, slowdowns: Sequence[float] | None, seed: int) -> list[float]:
    """The slow-downs of a calibration in random order, so that one that is cut short has some of each."""
    if slowdowns:
        shares = [share for share in slowdowns for _ in range(count)]
    else:
        shares = [0.0] * count + [share for share in SLOWDOWNS for _ in range(math.ceil(SLOWED_SHARE * count))]
    random.Random(seed).shuffle(shares)
    return shares


def _outcome(finding: Finding, pairs: Sequence[Pair], share: float, seconds: float) -> Outcome:
    good = [pair for pair in pairs if pair.workload == finding.workload and not pair.disturbed]
    counted = good[: finding.repetitions]
    time_ = finding.time
    return Outcome(
        method=calibration.METHOD,
        version=__version__,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        workload=finding.workload,
        slowdown=share,
        limits=finding.limits,
        held_share=statistics.fmean(pair.head_seen.held_share for pair in counted) if counted else share,
        verdict=finding.verdict,
        ratio=time_.ratio if time_ else None,
        ratio_low=time_.ratio_low if time_ else None,
        ratio_high=time_.ratio_high if time_ else None,
        repetitions=finding.repetitions,
        dropped=finding.dropped,
        seconds=seconds,
        reasons=list(finding.reasons),
        log_ratios=[log_ratio(pair) for pair in counted] if time_ else [],
    )
