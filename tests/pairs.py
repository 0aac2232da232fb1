"""Made-up repetitions of two sides, for tests of the conclusions from them."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from harness.ab.pair import Pair, Seen
from harness.record import WorkCertificate
from tests.samples import record

ROUNDS = 12


def pair(repetition: int, ratio: float = 1.0, *, workload: str = "gpt2/tiny", **changes: Any) -> Pair:
    """An honest repetition whose head takes `ratio` times the base's time; `changes` are fields of Pair."""
    draw = random.Random(repetition)
    base_s = [0.04 * draw.lognormvariate(0, 0.05) for _ in range(ROUNDS)]
    head_s = [time_s * ratio * draw.lognormvariate(0, 0.01) for time_s in base_s]
    fields: dict[str, Any] = {
        "workload": workload,
        "repetition": repetition,
        "base": _record(repetition, base_s, workload),
        "head": _record(repetition, head_s, workload),
        "base_seen": Seen(modules=1),
        "head_seen": Seen(modules=1),
        "disturbed": (),
    }
    return Pair(**fields | changes)


def _record(repetition: int, times_s: list[float], workload: str) -> Any:
    made = record("fp32", repetition, times_s, workload)
    made.measurement.peak_memory_bytes = 100_000_000
    made.measurement.losses = [5.0] * len(times_s)
    return dataclasses.replace(made, certificate=certificate())


def certificate(**changes: Any) -> WorkCertificate:
    fields: dict[str, Any] = {
        "parameters": 10,
        "trained_parameters": 10,
        "updates": ROUNDS,
        "skipped_updates": 0,
        "tensors": 2,
        "moved_tensors": 2,
        "movement_rms": 0.1,
        "weight_dtypes": ["float32"],
        "state_dtypes": ["float32"],
        "graph_breaks": 0,
        "recompiles": 0,
    }
    return WorkCertificate(**fields | changes)
