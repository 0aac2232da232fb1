"""The allocator's peak of some arms, held against what fake tensors foresee of it."""

from __future__ import annotations

import dataclasses

from bench.spec import Protocol, parse_composition
from harness.prepare import TASK_TIMEOUT_S
from harness.record import Status
from reports import quantity
from tests.gpu_acceptance.rows import Row, failed, judged, needs_gpu, within
from tests.gpu_acceptance.stand import Stand, measured, prepared

COMPOSITIONS = (("amp_bf16",), ("checkpoint_activations",), ("accumulate_4",), ("sgd",))
"""Each changes another part of what is kept: activations in half, recomputed, of a quarter batch; optimizer state."""

FORESEEN_WITHIN = (0.9, 1.1)

PROTOCOL = Protocol(warmup_s=0.3, warmup_min_steps=3, sustained_s=0.1, rounds=3, rounds_s=0.1, telemetry=False)


def memory(stand: Stand) -> None:
    """One row for each arm: the allocator's peak against what was foreseen of it."""
    made = prepared(stand, [stand.spec], COMPOSITIONS, PROTOCOL)
    (entry,) = made.entries
    for record in measured(stand, made):
        what = f"peak memory, {record.techniques}"
        peak = record.measurement.allocated_peak_bytes
        asked = {
            "workload": dataclasses.asdict(entry.spec),
            "corpus": dataclasses.asdict(entry.corpus),
            "techniques": list(parse_composition(record.techniques)),
            "device": stand.device,
        }
        foreseen: int = stand.nursery().run("harness.foresee:peak_bytes", asked, TASK_TIMEOUT_S)
        if record.status is not Status.OK:
            stand.tell(failed(what, f"{record.status}: {record.reason}"))
        elif peak is None:
            stand.tell(needs_gpu(f"{what}, of which {quantity.memory(foreseen)} are foreseen"))
        else:
            stand.tell(row(record.techniques, peak_bytes=peak, foreseen_bytes=foreseen))


def row(techniques: str, *, peak_bytes: int, foreseen_bytes: int) -> Row:
    low, high = FORESEEN_WITHIN
    ratio = foreseen_bytes / peak_bytes
    seen = f"{quantity.memory(peak_bytes)} measured, {quantity.memory(foreseen_bytes)} foreseen, {ratio:.3f} of it"
    expected = f"foreseen / measured {low} to {high}"
    return judged(f"peak memory, {techniques}", seen, expected, holds=within(ratio, low, high))
