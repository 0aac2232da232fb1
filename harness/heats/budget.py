"""What repetitions will take, by what earlier ones took, and which arms the time is best spent on."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from harness.record import Measurement, Record

BETWEEN_ARMS = 1.1
"""Over the time in which arms are active; the rest is pauses and the starting and ending of processes."""

COMPILED_AGAIN = 0.2
"""What a first step takes from a warm compile cache, of what it took from a cold one: tracing is not kept. On two cores
7 s after 36 s, and 8 s after 43 s, for gpt2/nano and gpt2/tiny."""

DEAR = 3.0
"""An arm that takes so many times what the median arm takes can sit out: its second repetition lessens the variance of
its mean by half, and a third one of three others, in the same time, that of each by a third."""


def arm_s(records: Iterable[Record]) -> dict[str, float]:
    """By label, the seconds that another repetition of an arm of these records takes, certificates aside: what its
    latest took, all its processes and parts together, less what need not be compiled again."""
    took_s: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for record in records:
        took_s[record.techniques][record.repetition] += _again_s(record.measurement)
    return {label: by_repetition[max(by_repetition)] for label, by_repetition in took_s.items()}


def expected_s(costs_s: Mapping[str, float], labels: Iterable[str]) -> float:
    """What a repetition of these arms takes. Of an arm that is not among the costs, what most take."""
    typical_s = statistics.median(costs_s.values()) if costs_s else 0.0
    return BETWEEN_ARMS * sum(costs_s.get(label, typical_s) for label in labels)


def affordable(costs_s: Mapping[str, float], labels: Sequence[str], share_s: float) -> list[str]:
    """Those of the arms that a share of time too short for all is best spent on: first the dear ones are left out, then
    the dearest of the rest until it fits."""
    known = [costs_s[label] for label in labels if label in costs_s]
    dear_s = DEAR * statistics.median(known) if known else 0.0
    cheap = [label for label in labels if costs_s.get(label, 0.0) <= dear_s]
    kept = sorted(cheap, key=lambda label: costs_s.get(label, 0.0))
    while kept and expected_s(costs_s, kept) > share_s:
        kept.pop()
    return [label for label in labels if label in kept]


def start_s(records: Iterable[Record], workload: str) -> dict[str, float]:
    """By label, the seconds from asking for an arm until it is warm: those of the workload's latest repetition, less
    what need not be compiled again, or where it has none, those of the workload that was measured last."""
    found: dict[str, float] = {}
    own: dict[str, float] = {}
    for record in records:
        measured = record.measurement
        if not measured.round_host_times_s:
            continue
        rounds_s = sum(measured.round_host_times_s)
        found[record.techniques] = measured.active_s - rounds_s
        if record.workload == workload:
            own[record.techniques] = _again_s(measured) - rounds_s
    return found | own


def _again_s(measured: Measurement) -> float:
    if measured.compile_cache != "cold" or measured.first_step_s is None:
        return measured.active_s
    return measured.active_s - (1 - COMPILED_AGAIN) * measured.first_step_s
