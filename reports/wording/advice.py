"""Warnings: what in the records weakens the conclusions, and what to do about it. As data; nothing is printed here."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.facts import Change
from bench.spec import BASELINE, Phase
from harness.record import Record, Status, why_unknown
from reports.wording import quantity
from results.compare import Comparison
from results.summary import conditions, incomparable

FOREIGN_CPU_PCT = 5.0
"""Mean CPU use by other programs, in per cent of all cores, above which step times are likely to suffer."""
STEAL_PCT = 2.0
"""Mean time taken by the hypervisor, in per cent of all cores; on a dedicated machine it is 0."""
WIDE_EFFECT = 0.05
"""An arm that cannot detect a change of this share says little about most techniques."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning:
    """What was seen, and what to do about it, both in whole sentences."""

    text: str
    advice: str


Check = Callable[[Sequence[Comparison], Sequence[Record]], Warning | None]


def warnings(comparisons: Sequence[Comparison], records: Sequence[Record]) -> list[Warning]:
    """All warnings that the records call for, the most serious first."""
    return [warning for check in CHECKS if (warning := check(comparisons, records))]


def _mixed(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
    by_run: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_run[record.run_id].append(record)
    differences = incomparable([conditions(own) for own in by_run.values()])
    if not differences:
        return None
    return Warning(
        text=f"Records that should not be compared are shown together: {'; '.join(differences)}.",
        advice="Do not trust any difference between the runs; measure again on one machine with one corpus.",
    )


def _noisy(name: str, limit: float, what: str, advice: str) -> Check:
    """A check that the mean of `sample_<name>` in each record is at most `limit`, in per cent of all cores."""

    def check(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
        samples = ((record, getattr(record.measurement, f"sample_{name}")) for record in records)
        means = [(statistics.fmean(values), record) for record, values in samples if values]
        above = [item for item in means if item[0] > limit]
        if not above:
            return None
        worst, record = max(above, key=lambda item: item[0])
        where = f"{record.techniques} on {record.workload}, repetition {record.repetition}"
        share = f"in {len(above)} of {len(means)} records"
        return Warning(
            text=f"{what} {share}; at worst {quantity.percent(worst)} of all cores ({where}).", advice=advice
        )

    return check


def _throttled(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
    asked = [
        record.measurement.throttle_reasons for record in records if record.measurement.throttle_reasons is not None
    ]
    reasons = Counter(reason for found in asked for reason in found)
    if not reasons:
        return None
    seen = [f"{reason} ({number} of {len(asked)} records)" for reason, number in reasons.most_common()]
    return Warning(
        text=f"The GPU was held back: {quantity.several(seen)}.",
        advice="Improve cooling or fix the clocks; a technique that draws more power may look slower than it is.",
    )


def _unwatched(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
    """Records on a GPU that should show what held it back, but do not."""
    on_gpu = [record for record in records if record.device == "cuda" and record.status is Status.OK]
    reasons = [reason for record in on_gpu if (reason := why_unknown(record.measurement, "throttle_reasons"))]
    if not reasons:
        return None
    return Warning(
        text=f"Whether the GPU was held back is unknown in {len(reasons)} of {len(on_gpu)} records: "
        f"{quantity.several(list(dict.fromkeys(reasons)))}.",
        advice="Watch the clocks by other means; an arm that was held back looks slower than it is.",
    )


def _unsteady(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
    found = [record for record in records if record.status is Status.OK and record.measurement.warmup_steady is False]
    if not found:
        return None
    return Warning(
        text=f"Warm-up ended before steps were steady in {len(found)} of {len(records)} records: {_arms(found)}.",
        advice="Allow a longer warm-up (the plan's protocol has its bounds in seconds and steps).",
    )


def _without_graphs(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
    certified = [(record, record.certificate) for record in records if record.device == "cuda" and record.certificate]
    found = [record for record, seen in certified if seen.cudagraph_skips and seen.cuda_graph_launches == 0]
    if not found:
        return None
    return Warning(
        text=f"torch.compile gave up every CUDA graph and launched kernels one by one: {_arms(found)}.",
        advice="These arms do not show what CUDA graphs bring; TORCH_LOGS=cudagraphs says why they were skipped.",
    )


def _arms(found: Iterable[Record | Comparison]) -> str:
    return quantity.several(list(dict.fromkeys(f"{item.techniques} on {item.workload}" for item in found)))


def _few(comparisons: Sequence[Comparison], _: Sequence[Record]) -> Warning | None:
    """A single repetition has no interval, unless many other arms show how wide its spread would be."""
    rivals = [item for item in comparisons if item.status is Status.OK and item.techniques != BASELINE]
    single = [item for item in rivals if item.repetitions == 1 and item.speedup_low is None]
    if single:
        return Warning(
            text=f"There is only one repetition, so there is no interval and no verdict, for {_arms(single)}.",
            advice="Repeat with --repetitions 3 or more.",
        )
    return None


def _wide(comparisons: Sequence[Comparison], _: Sequence[Record]) -> Warning | None:
    wide = [item for item in comparisons if item.smallest_effect is not None and item.smallest_effect > WIDE_EFFECT]
    if not wide:
        return None
    worst = max(wide, key=lambda item: item.smallest_effect or 0)
    worst_effect = quantity.share(worst.smallest_effect or 0)
    return Warning(
        text=f"Intervals are wide: {len(wide)} arms could not have shown a change of {quantity.share(WIDE_EFFECT)}; "
        f"for {worst.techniques} on {worst.workload} it would take {worst_effect}.",
        advice="Repeat more often, or on a quieter machine. Here, unclear does not mean the same.",
    )


def _uncertified(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
    """Arms whose losses could not be compared with the baseline's."""
    found = [record for record in records if record.certificate and record.certificate.losses_unknown]
    if not found:
        return None
    reasons = [record.certificate.losses_unknown for record in found if record.certificate]
    return Warning(
        text=f"Losses could not be compared with the baseline's for {_arms(found)}: {reasons[0]}.",
        advice="Draw random numbers with random, numpy.random or torch, which are seeded, outside the model's forward "
        "pass. If layers normalise over a batch, its parts train differently than the whole: check what is learned.",
    )


def _disturbed(_: Sequence[Comparison], records: Sequence[Record]) -> Warning | None:
    """Repetitions and rounds that are left out because something disturbed them."""
    repetitions = {(record.workload, record.repetition) for record in records}
    whole = {(record.workload, record.repetition) for record in records if record.disturbed}
    partly = {(record.workload, record.repetition) for record in records if record.dropped_rounds} - whole
    if not whole and not partly:
        return None
    causes = [text for record in records for text in record.disturbances]
    left_out = [
        *([f"{len(whole)} of {len(repetitions)} repetitions"] if whole else []),
        *([f"some rounds of {len(partly)} {'others' if whole else 'repetitions'}"] if partly else []),
    ]
    return Warning(
        text=f"Something disturbed the measurements, so {quantity.several(left_out)} were left out: {causes[-1]}"
        f"{', for example' if len(set(causes)) > 1 else ''}.",
        advice="Stop whatever else runs here, or measure when the machine is quiet: what is left out is lost time.",
    )


MOST_ASKED = 3
"""The most techniques named in a command."""


def _otherwise(comparisons: Sequence[Comparison], _: Sequence[Record]) -> Warning | None:
    """Arms that may need more or fewer steps than the baseline, or reach another loss: their pace does not show what
    they save."""
    found = [
        item
        for item in comparisons
        if item.status is Status.OK
        and set(item.changes) - {Change.NUMERICS.value}
        and not item.workload.endswith(f" {Phase.INFER}")
    ]
    if not found:
        return None
    model, _space, phase = found[0].workload.partition(" ")
    own = [item.techniques for item in found if item.workload == found[0].workload][:MOST_ASKED]
    asked = "".join([f" --phase {phase}" if phase else "", *(f" --technique {label}" for label in own)])
    return Warning(
        text=f"These arms learn differently, so their step time does not show what they save: {_arms(found)}.",
        advice=f"Compare the time to the same loss: trainpace worth --model {model}{asked}",
    )


CHECKS: tuple[Check, ...] = (
    _mixed,
    _disturbed,
    _noisy(
        "foreign_cpu_pct",
        FOREIGN_CPU_PCT,
        "Other programs used the CPU",
        "Stop them and run again: they do not slow down all arms equally.",
    ),
    _noisy(
        "steal_pct",
        STEAL_PCT,
        "The hypervisor took CPU time away from this virtual machine",
        "Use a machine with dedicated cores, or repeat more often.",
    ),
    _throttled,
    _without_graphs,
    _unwatched,
    _unsteady,
    _uncertified,
    _few,
    _wide,
    _otherwise,
)
