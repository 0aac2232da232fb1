"""One run set against another: whether it may be, and what comes of it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from scipy import stats

from bench.spec import BASELINE
from harness.record import Machine, Record, Status
from results.compare import Comparison, compare, difference, verdict
from results.pace import log_pace
from results.statistics import CONFIDENCE, Interval


def compare_runs(base: Sequence[Record], head: Sequence[Record], machine: Machine) -> list[Comparison]:
    """The head run's arms against the same arms of the base run, for those that both have.

    The runs were not interleaved, so the ratio is unpaired (Welch's t on the logarithms) and a drift of the machine
    between the runs is part of it.
    """
    before = {(row.workload, row.techniques): row for row in compare(base, machine)}
    rows = []
    compared = [row for row in compare(head, machine) if (row.workload, row.techniques) in before]
    per_workload = Counter(row.workload for row in compared)
    for row in compared:
        other = before[row.workload, row.techniques]
        equal = row.status is Status.OK and other.status is Status.OK
        arm = (row.workload, row.techniques)
        paces = repetition_paces(base, *arm), repetition_paces(head, *arm)
        ratio = _unpaired(*paces, CONFIDENCE) if equal else None
        claim = _unpaired(*paces, CONFIDENCE ** (1 / per_workload[row.workload])) if equal else None
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


def repetition_paces(records: Sequence[Record], workload: str, techniques: str) -> list[float]:
    """The logarithm of the time a token of each repetition of the arm that ended well, the mean over its processes."""
    by_repetition: dict[int, list[float]] = defaultdict(list)
    for item in records:
        is_arm = (item.workload, item.techniques, item.status) == (workload, techniques, Status.OK)
        if is_arm and (pace := log_pace(item)) is not None:
            by_repetition[item.repetition].append(pace)
    return [statistics.fmean(values) for values in by_repetition.values()]


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


def incomparable(runs: Sequence[Sequence[Record]], *, as_one: bool = False) -> list[str]:
    """In words, why records of these runs must not be set beside each other; empty if they may.

    `as_one`: they are to be taken for those of one run. To compare two is to see what another code does.
    """
    differences = []
    for name in ("machine_id", "device"):
        values = sorted({getattr(record, name) for records in runs for record in records})
        if len(values) > 1:
            differences.append(f"the runs differ in {name}: {', '.join(values)}")
    for name in ("batch", "sequence", "corpus_sha256", *(["workload_sha256"] if as_one else [])):
        seen: dict[str, set[str]] = defaultdict(set)
        # An arm may have a batch of its own: the workload's is the baseline's.
        for record in (item for records in runs for item in records if item.techniques == BASELINE):
            seen[record.workload].add(str(getattr(record, name))[:12])
        differences += [
            f"the runs differ in the {name} of {workload}: {', '.join(sorted(values))}"
            for workload, values in seen.items()
            if len(values) > 1
        ]
    return differences
