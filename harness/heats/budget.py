"""Predict from earlier repetitions how long further ones take, and choose the arms on which time is best spent."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from harness.record import Measurement, Record

BETWEEN_ARMS = 1.1
"""Factor on the time in which arms are active, for pauses and for starting and ending processes."""

COMPILED_AGAIN = 0.2
"""The share that a first step with a warm compile cache takes of one with a cold cache: tracing is not cached. On two
cores it took 7 s after 36 s, and 8 s after 43 s, for gpt2/nano and gpt2/tiny."""

DEAR = 3.0
"""An arm that takes this many times as long as the median arm may sit out: its second repetition halves the variance of
its mean, while in the same time a third repetition of three others reduces the variance of each by a third."""


def arm_s(records: Iterable[Record]) -> dict[str, float]:
    """By label, the seconds that another repetition of an arm takes, without certificates: what its latest one took,
    over all processes and parts, less what need not be compiled again."""
    took_s: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for record in records:
        took_s[record.techniques][record.repetition] += _again_s(record.measurement)
    return {label: by_repetition[max(by_repetition)] for label, by_repetition in took_s.items()}


def expected_s(costs_s: Mapping[str, float], labels: Iterable[str]) -> float:
    """How long a repetition of these arms takes. An arm without a known cost counts as the median."""
    typical_s = statistics.median(costs_s.values()) if costs_s else 0.0
    return BETWEEN_ARMS * sum(costs_s.get(label, typical_s) for label in labels)


def affordable(costs_s: Mapping[str, float], labels: Sequence[str], share_s: float) -> list[str]:
    """The arms on which a share of time that is too short for all is best spent: first the dear ones are left out, then
    the dearest of the rest until the others fit."""
    known = [costs_s[label] for label in labels if label in costs_s]
    dear_s = DEAR * statistics.median(known) if known else 0.0
    cheap = [label for label in labels if costs_s.get(label, 0.0) <= dear_s]
    kept = sorted(cheap, key=lambda label: costs_s.get(label, 0.0))
    while kept and expected_s(costs_s, kept) > share_s:
        kept.pop()
    return [label for label in labels if label in kept]


def start_s(records: Iterable[Record], workload: str) -> dict[str, float]:
    """By label, the seconds from the request for an arm until it is warm: from the workload's latest repetition, less
    what need not be compiled again; if it has none, from the workload that was measured last."""
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
