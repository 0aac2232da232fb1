"""One run set against another: whether it may be, and what comes of it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from bench.spec import BASELINE
from harness.record import Machine, Record, Status
from results.compare import Comparison, compare, difference, verdict
from results.pace import log_pace
from results.statistics import CONFIDENCE, Interval

ALIKE = ("batch", "sequence", "corpus_sha256")
"""What the baselines of a workload have to share; and where two runs are taken for one, also the workload's sources: to
compare two is to see what another code does."""

OF_A_MACHINE = ("machine_id", "device")

LETTERS = 12
"""Of a checksum, that are told."""

Paces = Mapping[str, Mapping[str, Sequence[float]]]
"""By workload and techniques, the logarithm of the time a token of each repetition that ended well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what a run was measured: each name with all that it was, in words; `workloads` by workload. `heats` has
    what heats mix, each of which is to be of one machine."""

    run: Mapping[str, Sequence[str]]
    heats: Mapping[str, Sequence[str]]
    workloads: Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What of a run is needed where many are set beside each other: none of its steps."""

    run_id: str
    started_at: str
    commit: str | None
    conditions: Conditions
    paces: Paces


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A run with what its arms come to."""

    summary: Summary
    comparisons: Sequence[Comparison]


def summary(records: Sequence[Record], commit: str | None = None) -> Summary:
    """Of the records of one run, and the commit that its machine's description names."""
    return Summary(
        run_id=records[0].run_id,
        started_at=min(record.started_at for record in records),
        commit=commit,
        conditions=conditions(records),
        paces=paces(records),
    )


def told(records: Sequence[Record], machine: Machine) -> Told:
    return Told(summary=summary(records, machine.git_commit), comparisons=compare(records, machine))


def conditions(records: Sequence[Record]) -> Conditions:
    # An arm may have a batch of its own: the workload's is the baseline's.
    baselines: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.techniques == BASELINE:
            baselines[record.workload].append(record)
    heats: dict[tuple[str, int, int], list[Record]] = defaultdict(list)
    for record in records:
        heats[record.workload, record.repetition, record.heat_part].append(record)
    mixed = {name: [_values(own, name) for own in heats.values()] for name in OF_A_MACHINE}
    return Conditions(
        run={name: _values(records, name) for name in OF_A_MACHINE},
        heats={
            name: sorted({value for values in found if len(values) > 1 for value in values})
            for name, found in mixed.items()
        },
        workloads={
            workload: {name: _values(own, name) for name in (*ALIKE, "workload_sha256")}
            for workload, own in baselines.items()
        },
    )


def _values(records: Iterable[Record], name: str) -> list[str]:
    return sorted({str(getattr(record, name)) for record in records})


def paces(records: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
    """Of each arm that has any; of each repetition the mean over its processes."""
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in records:
        if item.status is Status.OK and (pace := log_pace(item)) is not None:
            found[item.workload, item.techniques][item.repetition].append(pace)
    by_workload: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (workload, techniques), repetitions in found.items():
        by_workload[workload][techniques] = [statistics.fmean(values) for values in repetitions.values()]
    return dict(by_workload)


def compare_runs(base: Told, head: Told) -> list[Comparison]:
    """The head run's arms against the same arms of the base run, for those that both have.

    The runs were not interleaved, so the ratio is unpaired (Welch's t on the logarithms) and a drift of the machine
    between the runs is part of it.
    """
    before = {(row.workload, row.techniques): row for row in base.comparisons}
    rows = []
    compared = [row for row in head.comparisons if (row.workload, row.techniques) in before]
    per_workload = Counter(row.workload for row in compared)
    for row in compared:
        other = before[row.workload, row.techniques]
        equal = row.status is Status.OK and other.status is Status.OK
        old, new = (run.summary.paces.get(row.workload, {}).get(row.techniques, []) for run in (base, head))
        ratio = _unpaired(old, new, CONFIDENCE) if equal else None
        claim = _unpaired(old, new, CONFIDENCE ** (1 / per_workload[row.workload])) if equal else None
        rows.append(
            dataclasses.replace(
                row,
                speedup=ratio.estimate if ratio else None,
                speedup_low=ratio.low if ratio else None,
                speedup_high=ratio.high if ratio else None,
                claim_low=claim.low if claim else None,
                claim_high=claim.high if claim else None,
                smallest_effect=None,
                seconds_to_know=None,
                pays=None,
                pays_after_updates=None,
                pays_after_updates_low=None,
                pays_after_updates_high=None,
                verdict=verdict(claim.low, claim.high) if claim else None,
                method=ratio.method if ratio else None,
                loss_delta=difference(row.final_loss, other.final_loss),
            )
        )
    return rows


def _unpaired(base: Sequence[float], head: Sequence[float], confidence: float) -> Interval | None:
    """The ratio base / head of two independent sets of logarithms with Welch's interval."""
    if not base or not head:
        return None
    estimate = statistics.fmean(base) - statistics.fmean(head)
    low = high = None
    if min(len(base), len(head)) > 1:
        bounds = stats.ttest_ind(base, head, equal_var=False).confidence_interval(confidence)
        low, high = math.exp(bounds.low), math.exp(bounds.high)
    method = f"Welch t, runs not interleaved, n={len(base)}+{len(head)}"
    return Interval(estimate=math.exp(estimate), low=low, high=high, smallest_effect=None, method=method)


def incomparable(runs: Sequence[Conditions], *, as_one: bool = False) -> list[str]:
    """In words, why what was measured under these conditions must not be set beside each other; empty if it may.

    `as_one`: the runs are to be taken for one.
    """
    differences = []
    for name in OF_A_MACHINE:
        # Within a run of several machines all ratios are of heats.
        told = [run.heats[name] for run in runs] if len(runs) == 1 else [run.run[name] for run in runs]
        values = sorted({value for values in told for value in values})
        if len(values) > 1:
            differences.append(f"the runs differ in {name}: {', '.join(values)}")
    workloads = dict.fromkeys(workload for run in runs for workload in run.workloads)
    for name in (*ALIKE, *(["workload_sha256"] if as_one else [])):
        for workload in workloads:
            own = [run.workloads[workload][name] for run in runs if workload in run.workloads]
            shown = sorted({value[:LETTERS] for values in own for value in values})
            if len(shown) > 1:
                differences.append(f"the runs differ in the {name} of {workload}: {', '.join(shown)}")
    return differences
