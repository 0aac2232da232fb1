"""Records to comparisons: one row for each workload and composition, against the baseline of the same heat."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from bench.spec import BASELINE
from harness.record import Machine, Record, Status
from results.metrics import METRICS, final_loss, step_time_s
from results.statistics import Interval, interval

SAME_WITHIN = 0.02
"""An interval that holds 1 and lies within this share of it says that the technique makes no difference."""


class Verdict(StrEnum):
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm of one heat over its repetitions. None is unknown; `reason` says why where an arm is not `ok`.

    Times are in seconds; `speedup` is the baseline's time a token over the arm's (above 1 is faster), with its 95 %
    interval.
    `changes` are what the techniques declare that they change. `alone`: not interleaved with the baseline, beside which
    it does not fit in memory, but measured before or after it in each repetition. `smallest_effect` is the least
    relative change of the time a token that these repetitions could have seen (80 % power).
    """

    workload: str
    techniques: str
    status: Status
    repetitions: int
    step_time_s: float | None
    step_time_low_s: float | None
    step_time_high_s: float | None
    tokens_per_s: float | None
    samples_per_s: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    verdict: Verdict | None
    method: str | None
    smallest_effect: float | None
    peak_memory_bytes: float | None
    gpu_util_pct: float | None
    cpu_util_pct: float | None
    energy_j_per_token: float | None
    mfu: float | None
    matmul_share: float | None
    data_wait_pct: float | None
    copy_pct: float | None
    ready_s: float | None
    first_step_s: float | None
    compile_s: float | None
    ranks: int
    scaling_efficiency: float | None
    exposed_communication_share: float | None
    slowest_rank: float | None
    cuda_graph_launches: float | None
    cudagraph_skips: float | None
    accuracy: float | None
    f1: float | None
    final_loss: float | None
    loss_delta: float | None
    parameters: int | None
    changes: list[str]
    alone: bool
    reason: str | None
    command: str


def compare(records: Sequence[Record], machine: Machine) -> list[Comparison]:
    """One comparison for each workload and composition: workloads as they were measured, baseline first."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda item: (item.repetition, item.heat_part, item.techniques)):
        groups[record.workload, record.techniques].append(record)
    baselines = {workload: found for (workload, label), found in groups.items() if label == BASELINE}
    rows = [_comparison(found, baselines.get(workload, []), machine) for (workload, _), found in groups.items()]
    measured_first = {workload: found[0].started_at for workload, found in baselines.items()}
    return sorted(
        rows,
        key=lambda row: (measured_first.get(row.workload, ""), row.workload, row.techniques != BASELINE),
    )


def _comparison(records: list[Record], baselines: list[Record], machine: Machine) -> Comparison:
    first = records[0]
    # Unequal work is shown with its figures, but never ranked.
    shown = (Status.OK, Status.UNEQUAL_WORK)
    good = [record for record in records if record.status in shown and step_time_s(record) is not None]
    failed = next((record for record in records if record.status is not Status.OK), None)
    # One repetition of unequal work or failure disqualifies the arm: what the others did is not known to be better.
    status = failed.status if failed else Status.OK
    is_baseline = first.techniques == BASELINE
    ratios = [] if is_baseline else log_ratios(good, baselines)
    step = _log_interval([time_s for record in good if (time_s := step_time_s(record))])
    speedup = _log_interval([math.exp(-ratio) for ratio in ratios]) if status is Status.OK else None
    metrics = {metric.name: _median(metric.derive(record, machine) for record in good) for metric in METRICS}
    baseline_loss = _median(final_loss(record) for record in baselines)
    cold = [record.measurement for record in good if record.measurement.compile_cache in (None, "cold")]
    return Comparison(
        workload=first.workload,
        techniques=first.techniques,
        status=status,
        repetitions=len({record.repetition for record in good}),
        step_time_s=step.estimate if step else None,
        step_time_low_s=step.low if step else None,
        step_time_high_s=step.high if step else None,
        speedup=1.0 if is_baseline and good else speedup.estimate if speedup else None,
        speedup_low=speedup.low if speedup else None,
        speedup_high=speedup.high if speedup else None,
        verdict=verdict(speedup) if speedup else None,
        method=speedup.method if speedup else None,
        smallest_effect=speedup.smallest_effect if speedup else None,
        ready_s=_median(record.measurement.ready_s for record in good),
        first_step_s=_median(item.first_step_s for item in cold),
        compile_s=_median(item.compile_s for item in cold),
        loss_delta=None if is_baseline else difference(metrics["final_loss"], baseline_loss),
        parameters=next((item.certificate.parameters for item in good if item.certificate), first.parameters),
        ranks=first.world_size,
        scaling_efficiency=_efficiency(speedup, first),
        changes=first.changes,
        alone=not is_baseline and any(record.alone for record in good),
        reason=failed.reason if failed else None,
        command=first.command,
        **metrics,
    )


def _efficiency(speedup: Interval | None, record: Record) -> float | None:
    """Speed-up over the number of devices that are used for each of the baseline's: 1 is perfect scaling.

    On a GPU every rank brings a device. On a CPU the ranks share the cores that the baseline has to itself.
    """
    if speedup is None or record.world_size == 1:
        return None
    return speedup.estimate / (record.world_size if record.device == "cuda" else 1)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def difference(value: float | None, reference: float | None) -> float | None:
    """None where either is unknown."""
    return None if value is None or reference is None else value - reference


def log_ratios(records: Iterable[Record], baselines: Iterable[Record]) -> list[float]:
    """ln(arm / baseline) of the time a token (a sample, where samples are not text), one value a repetition, over the
    steps of the rounds that both ran. Where both take the same batches that is the ratio of their step times.

    The value is the Hodges-Lehmann shift: the median of the differences between all pairs of an arm's and a baseline's
    logarithm. Interleaving lets a drift of the machine reach both alike; the shift wastes less of a few noisy steps
    than the median of one difference a round. Only records of the same repetition and heat part are set against each
    other, because only those ran interleaved.
    """
    partners = {(item.repetition, item.heat_part): item for item in baselines if item.status is Status.OK}
    ratios = []
    for record in records:
        partner = partners.get((record.repetition, record.heat_part))
        if partner is None:
            continue
        shared = set(record.measurement.round_index) & set(partner.measurement.round_index)
        own, other = log_paces(record, shared), log_paces(partner, shared)
        if shared:
            ratios.append(float(np.median(np.subtract.outer(own, other))))
    return ratios


def log_paces(record: Record, rounds: set[int]) -> list[float]:
    """The logarithms of the time a token or sample of the steps of these rounds."""
    measured = record.measurement
    handled = measured.round_tokens or measured.round_samples
    steps = zip(measured.round_index, measured.round_step_times_s, handled, strict=True)
    return [math.log(time_s / count) for index, time_s, count in steps if index in rounds]


def _log_interval(values: Sequence[float]) -> Interval | None:
    """The interval of positive values, taken on their logarithms; `smallest_effect` as a relative change."""
    if not values:
        return None
    logs = interval([math.log(value) for value in values])
    return Interval(
        estimate=math.exp(logs.estimate),
        low=_exp(logs.low),
        high=_exp(logs.high),
        smallest_effect=None if logs.smallest_effect is None else math.expm1(logs.smallest_effect),
        method=logs.method,
    )


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)


def verdict(speedup: Interval) -> Verdict:
    """What the interval allows to say: a direction only if it leaves 1 out, `same` only if it is narrow."""
    if speedup.low is None or speedup.high is None:
        return Verdict.UNCLEAR
    if speedup.low > 1:
        return Verdict.FASTER
    if speedup.high < 1:
        return Verdict.SLOWER
    within = speedup.low >= 1 - SAME_WITHIN and speedup.high <= 1 + SAME_WITHIN
    return Verdict.SAME if within else Verdict.UNCLEAR


def most_telling(records: Sequence[Record], machine: Machine) -> list[tuple[str, list[str]]]:
    """Workloads with the labels that another repetition would tell most about.

    First those whose interval still straddles 1, the workload with the widest first; then every ranked arm, the
    workload with the fewest repetitions first.
    """
    rows = [row for row in compare(records, machine) if row.status is Status.OK and row.techniques != BASELINE]
    unclear = [row for row in rows if row.verdict is Verdict.UNCLEAR]
    widest = sorted(unclear, key=lambda row: -(row.smallest_effect or math.inf))
    fewest = sorted(rows, key=lambda row: row.repetitions)
    order = [
        (row.workload, chosen) for row, chosen in [(row, unclear) for row in widest] + [(row, rows) for row in fewest]
    ]
    plan: list[tuple[str, list[str]]] = []
    for workload, chosen in order:
        labels = [row.techniques for row in chosen if row.workload == workload]
        if (workload, labels) not in plan:
            plan.append((workload, labels))
    return plan
