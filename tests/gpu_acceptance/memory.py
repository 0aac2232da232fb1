"""The allocator's peak of some arms, for what is predicted of it: in the list of parts once something predicts."""

from __future__ import annotations

from collections.abc import Callable

from bench.spec import Protocol, WorkloadSpec, parse_composition
from harness.record import Status
from reports.quantity import memory
from tests.gpu_acceptance.rows import failed, judged, not_run, within
from tests.gpu_acceptance.stand import Stand, measured, prepared

COMPOSITIONS = (("amp_bf16",), ("checkpoint_activations",), ("accumulate_4",), ("sgd",))
"""Each changes another part of what is kept: activations in half, recomputed, of a quarter batch; optimizer state."""

PREDICTED_WITHIN = (0.9, 1.1)

PROTOCOL = Protocol(warmup_s=0.3, warmup_min_steps=3, sustained_s=0.1, rounds=3, rounds_s=0.1, telemetry=False)

Predict = Callable[[WorkloadSpec, tuple[str, ...]], int | None]
"""From a workload and its techniques to the bytes at the peak, None where they are unknown."""


def memory_rows(stand: Stand, predict: Predict) -> None:
    """One row for each arm: the peak that was measured against what `predict` says."""
    made = prepared(stand, [stand.spec], COMPOSITIONS, PROTOCOL)
    for record in measured(stand, made):
        what = f"peak memory, {record.techniques}"
        peak = record.measurement.peak_memory_bytes
        if record.status is not Status.OK or not peak:
            stand.tell(failed(what, f"{record.status}: {record.reason}"))
            continue
        predicted = predict(stand.spec, parse_composition(record.techniques))
        if predicted is None:
            stand.tell(not_run(what, f"measured {memory(peak)}, but nothing is predicted"))
            continue
        seen = f"{memory(peak)} measured, {memory(predicted)} predicted"
        bounds = f"predicted / measured {PREDICTED_WITHIN[0]} to {PREDICTED_WITHIN[1]}"
        stand.tell(judged(what, seen, bounds, holds=within(predicted / peak, *PREDICTED_WITHIN)))
