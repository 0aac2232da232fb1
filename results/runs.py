"""One run compared with another."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Machine, Record, Status
from results.compare import Comparison, compare, difference, verdict
from results.statistics import CONFIDENCE, Interval, Moments, welch_half_width
from results.summary import Summary, summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The summary of a run, and the comparisons of its arms."""

    summary: Summary
    comparisons: Sequence[Comparison]


def told(records: Sequence[Record], machine: Machine) -> Told:
    return Told(summary=summary(records, machine.git_commit), comparisons=compare(records, machine))


def compare_runs(base: Told, head: Told) -> list[Comparison]:
    """The head run's arms against the same arms of the base run, where both have them.

    The runs were not interleaved, so the ratio is unpaired (Welch's t on the logarithms) and includes any drift of the
    machine between the runs.
    """
    before = {(row.workload, row.techniques): row for row in base.comparisons}
    rows = []
    compared = [row for row in head.comparisons if (row.workload, row.techniques) in before]
    per_workload = Counter(row.workload for row in compared)
    for row in compared:
        other = before[row.workload, row.techniques]
        equal = row.status is Status.OK and other.status is Status.OK
        old, new = (run.summary.paces.get(row.workload, {}).get(row.techniques) for run in (base, head))
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


def _unpaired(base: Moments | None, head: Moments | None, confidence: float) -> Interval | None:
    """The ratio base / head from two independent samples of logarithms, with Welch's interval."""
    if base is None or head is None:
        return None
    estimate, half = float(base.mean - head.mean), float(welch_half_width(base, head, confidence))
    known = math.isfinite(half)
    return Interval(
        estimate=math.exp(estimate),
        low=math.exp(estimate - half) if known else None,
        high=math.exp(estimate + half) if known else None,
        smallest_effect=None,
        method=f"Welch t, runs not interleaved, n={base.number}+{head.number}",
    )
