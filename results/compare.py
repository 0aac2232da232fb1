"""From records to comparisons: one row for each workload and composition, against the baseline of the same heat."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.facts import Objective
from bench.spec import BASELINE
from harness.record import Machine, Record, Status
from results import arm
from results.contrasts import Contrast, contrasts
from results.metrics import METRICS, Figures, final_loss
from results.pace import log_pace, log_paces_together, step_time_s
from results.payback import Payback, Pays, payback
from results.statistics import SAME_WITHIN, Interval, interval


class Verdict(StrEnum):
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Figures):
    """One arm of one heat over its repetitions. None means unknown; `reason` says why an arm is not `ok`.

    `compute` is the number format of the large matrix products. Times are in seconds. `speedup` is the baseline's time
    per token over the arm's (above 1 is faster), with its 95 % interval. `claim_low` and `claim_high` are bounds that
    hold for all arms of the workload together with 95 %; the verdict follows them. If the verdict is unclear,
    `seconds_to_know` estimates how long further repetitions of the arm and the baseline would take to settle it.
    `dropped` counts disturbed repetitions; they are not among the `repetitions` and enter no figure. `pays` and
    `pays_after_updates` say when the arm has earned back its longer start (results.payback), by the bounds for all
    arms. `changes` are those that the techniques declare. `alone` means that the arm does not fit in memory together
    with the baseline, so it was not interleaved with it but measured before or after it in each repetition.
    `smallest_effect` is the least relative change of the time per token that these repetitions could have detected
    (80 % power, with all arms compared together).
    """

    workload: str
    techniques: str
    compute: str | None
    status: Status
    repetitions: int
    dropped: int
    step_time_s: float | None
    step_time_low_s: float | None
    step_time_high_s: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    claim_low: float | None
    claim_high: float | None
    verdict: Verdict | None
    seconds_to_know: float | None
    pays: Pays | None
    pays_after_updates: float | None
    pays_after_updates_low: float | None
    pays_after_updates_high: float | None
    method: str | None
    smallest_effect: float | None
    ranks: int
    scaling_efficiency: float | None
    loss_delta: float | None
    parameters: int | None
    changes: list[str]
    alone: bool
    reason: str | None
    command: str


def compare(records: Sequence[Record], machine: Machine) -> list[Comparison]:
    """One comparison for each workload and composition: workloads in the order of measurement, baselines first."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda item: (item.repetition, item.heat_part, item.techniques)):
        groups[record.workload, record.techniques].append(record)
    baselines = {workload: found for (workload, label), found in groups.items() if label == BASELINE}
    of_workload = {workload: [item for item in records if item.workload == workload] for workload in baselines}
    found = {workload: contrasts(blocks(own), BASELINE) for workload, own in of_workload.items()}
    several = len({record.machine_id for record in records}) > 1
    rows = [
        _comparison(own, baselines.get(workload, []), found.get(workload, {}).get(label), machine, several=several)
        for (workload, label), own in groups.items()
    ]
    measured_first = {workload: found[0].started_at for workload, found in baselines.items()}
    return sorted(
        rows,
        key=lambda row: (measured_first.get(row.workload, ""), row.workload, row.techniques != BASELINE),
    )


def blocks(records: Sequence[Record], by: Objective = Objective.PACE) -> list[dict[str, list[float]]]:
    """For each repetition of one workload, and each part of it, the paces of the processes of the baseline and of every
    arm that always ended ok. With `by` energy, the values are ln(joules per token), where the machine counted them."""
    # One repetition with unequal work or a failure disqualifies the arm: its other repetitions may be no better.
    failed = {record.techniques for record in records if record.status is not Status.OK} - {BASELINE}
    parts: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for record in records:
        if record.status is Status.OK and record.techniques not in failed:
            parts[record.repetition, record.heat_part].append(record)
    found = []
    for _, together in sorted(parts.items()):
        alone = any(record.alone for record in together)
        if by is Objective.ENERGY:
            paces = [_log_joules(record) for record in together]
        else:
            paces = [log_pace(record) for record in together] if alone else log_paces_together(together)
        block: dict[str, list[float]] = defaultdict(list)
        for record, pace in zip(together, paces, strict=True):
            if pace is not None:
                block[record.techniques].append(pace)
        found.append(dict(block))
    return found


def _log_joules(record: Record) -> float | None:
    joules = None if record.disturbed else arm.joules_per_token([record])
    return math.log(joules) if joules else None


def _comparison(
    records: list[Record], baselines: list[Record], found: Contrast | None, machine: Machine, *, several: bool
) -> Comparison:
    first = records[0]
    # Unequal work is shown with its figures, but never ranked.
    shown = (Status.OK, Status.UNEQUAL_WORK)
    good = [record for record in records if record.status in shown and step_time_s(record) is not None]
    # Ratios use all machines, because each is taken within a heat, on one machine. Absolute figures use this machine.
    only = machine.machine_id if several else None
    here, beside = ([item for item in own if only in (None, item.machine_id)] for own in (good, baselines))
    failed = next((record for record in records if record.status is not Status.OK), None)
    status = failed.status if failed else Status.OK
    is_baseline = first.techniques == BASELINE
    step = _log_interval(_step_times_s(here))
    repetitions = len({record.repetition for record in good})
    bounds = (None, None) if found is None else (_exp(found.claim_low), _exp(found.claim_high))
    said = None if found is None else verdict(*bounds)
    metrics = {name: item.median(here, machine) for name, item in METRICS.items()}
    baseline_loss = _median(final_loss(record) for record in beside)
    paid = _payback(found, metrics["start_s"], beside, machine)
    return Comparison(
        workload=first.workload,
        techniques=first.techniques,
        compute=next((record.compute for record in records if record.compute), None),
        status=status,
        repetitions=repetitions,
        dropped=len({record.repetition for record in records if record.disturbed}),
        step_time_s=step.estimate if step else None,
        step_time_low_s=step.low if step else None,
        step_time_high_s=step.high if step else None,
        speedup=1.0 if is_baseline and good else math.exp(found.estimate) if found else None,
        speedup_low=_exp(found.low) if found else None,
        speedup_high=_exp(found.high) if found else None,
        claim_low=bounds[0],
        claim_high=bounds[1],
        verdict=said,
        seconds_to_know=_seconds_to_know(found, good, baselines) if found and said is Verdict.UNCLEAR else None,
        method=found.method if found else None,
        pays=paid.pays,
        pays_after_updates=paid.updates,
        pays_after_updates_low=paid.updates_low,
        pays_after_updates_high=paid.updates_high,
        smallest_effect=math.expm1(found.smallest_effect) if found and found.smallest_effect is not None else None,
        loss_delta=None if is_baseline else difference(metrics["final_loss"], baseline_loss),
        parameters=next((item.certificate.parameters for item in good if item.certificate), first.parameters),
        ranks=first.world_size,
        scaling_efficiency=_efficiency(found, first),
        changes=first.changes,
        alone=not is_baseline and any(record.alone for record in good),
        reason=failed.reason if failed else why_disturbed(records),
        command=first.command,
        **metrics,
    )


def _payback(found: Contrast | None, start_s: float | None, baselines: list[Record], machine: Machine) -> Payback:
    """The payback by the bounds for all arms together, like the verdict."""
    if found is None or found.claim_low is None or found.claim_high is None:
        return Payback()
    reference_s = METRICS["start_s"].median(baselines, machine)
    step = _log_interval(_step_times_s(baselines))
    return payback(
        difference(start_s, reference_s),
        step.estimate if step else None,
        math.exp(found.estimate),
        math.exp(found.claim_low),
        math.exp(found.claim_high),
    )


def why_disturbed(records: Sequence[Record]) -> str | None:
    """What disturbed an arm that has no undisturbed repetition; None if it has one."""
    if not all(record.disturbed for record in records):
        return None
    return f"every repetition was disturbed, so none is counted; in the last one, {records[-1].disturbances[-1]}"


def _step_times_s(records: Sequence[Record]) -> list[float]:
    """One value per repetition: the mean over the arm's processes in it."""
    by_repetition: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if (time_s := step_time_s(record)) is not None:
            by_repetition[record.repetition].append(time_s)
    return [statistics.fmean(values) for values in by_repetition.values()]


def _seconds_to_know(found: Contrast, records: Sequence[Record], baselines: Sequence[Record]) -> float | None:
    count = len({record.repetition for record in records})
    more = _repetitions_to_know(found, count)
    if more is None:
        return None
    beside = [record for record in baselines if record.repetition in {item.repetition for item in records}]
    return more * sum(record.measurement.active_s for record in (*records, *beside)) / count


def _efficiency(found: Contrast | None, record: Record) -> float | None:
    """Speed-up over the number of devices for each device of the baseline: 1 is perfect scaling.

    On GPUs every rank has its own device. On a CPU the ranks share the cores that the baseline has to itself.
    """
    if found is None or record.world_size == 1:
        return None
    return math.exp(found.estimate) / (record.world_size if record.device == "cuda" else 1)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def difference(value: float | None, reference: float | None) -> float | None:
    """None if either is unknown."""
    return None if value is None or reference is None else value - reference


def _log_interval(values: Sequence[float]) -> Interval | None:
    """The interval of positive values, computed on their logarithms; `smallest_effect` is a relative change."""
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


def verdict(low: float | None, high: float | None) -> Verdict:
    """The verdict that the bounds of a speed-up allow: a direction only if they exclude 1, `same` only if narrow."""
    if low is None or high is None:
        return Verdict.UNCLEAR
    if low > 1:
        return Verdict.FASTER
    if high < 1:
        return Verdict.SLOWER
    within = low >= 1 - SAME_WITHIN and high <= 1 + SAME_WITHIN
    return Verdict.SAME if within else Verdict.UNCLEAR


def _repetitions_to_know(found: Contrast, count: int) -> int | None:
    """How many more repetitions are likely to settle the verdict, either way, if the estimate is right: the width of
    the bounds falls with the square root of their number. None while there are no bounds."""
    if found.claim_high is None:
        return None
    effect = abs(found.estimate)
    wanted = max(effect, math.log1p(SAME_WITHIN) - effect)
    return max(1, math.ceil(count * ((found.claim_high - found.estimate) / wanted) ** 2) - count)


def most_telling(records: Sequence[Record], machine: Machine) -> list[tuple[str, list[str]]]:
    """Workloads with the labels that would gain most from another repetition, by the width of their bounds alone.

    The workload with the widest median bounds comes first: once with all its arms, then with the wider half of them.
    The others follow likewise. Directions play no part: repeating until an interval excludes 1 would make it do so too
    often.
    """
    rows = [row for row in compare(records, machine) if row.status is Status.OK and row.techniques != BASELINE]
    widths: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        widths[row.workload][row.techniques] = width(row)
    chosen = []
    for workload, found in sorted(widths.items(), key=lambda item: -statistics.median(item[1].values())):
        middle = statistics.median(found.values())
        chosen += [(workload, list(found)), (workload, [label for label in found if found[label] >= middle])]
    return chosen


def width(row: Comparison) -> float:
    """Half the width of the bounds on a logarithmic scale; infinite without bounds."""
    if row.claim_low is None or row.claim_high is None:
        return math.inf
    return math.log(row.claim_high / row.claim_low) / 2
