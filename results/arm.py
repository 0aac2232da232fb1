"""What the records of one arm show: how long its updates take and what they cost, or why that is unknown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from harness.record import Record, Status
from results import pace


def of(records: Sequence[Record], label: str, workload: str | None = None) -> list[Record]:
    """The records of an arm; `workload` is None if there is only one."""
    return [item for item in records if item.techniques == label and workload in (None, item.workload)]


def failure(own: Sequence[Record]) -> str | None:
    """Why the arm has no pace; None if it has records and none of them failed."""
    failed = next((item for item in own if item.status is not Status.OK), None)
    if failed:
        return failed.reason or failed.status.value
    return None if own else "there was no time to measure its pace"


def step_time_s(own: Sequence[Record]) -> float | None:
    """The median over its undisturbed repetitions."""
    times_s = [time_s for item in own if item.status is Status.OK and (time_s := pace.step_time_s(item)) is not None]
    return statistics.median(times_s) if times_s else None


def rough_step_time_s(own: Sequence[Record]) -> float | None:
    """The median over all steps, those of disturbed repetitions included; for planning."""
    times_s = [time_s for item in own for time_s in item.measurement.round_step_times_s]
    return statistics.median(times_s) if times_s else None


def joules_per_token(own: Sequence[Record]) -> float | None:
    """Joules per token, or per sample where data is not text; None where the machine does not count energy."""
    for item in own:
        measured = item.measurement
        units = measured.sustained_tokens or measured.sustained_samples
        if measured.sustained_energy_j is not None and units:
            return measured.sustained_energy_j / units
    return None
