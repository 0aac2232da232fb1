"""How often `run` is wrong on this machine: heats in which every rival is an idle copy of the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.record import Status
from results import kept
from results.calibration import Rate, upper_bound
from results.compare import Comparison, Verdict, width

METHOD = 1
"""The version of the method of measuring and concluding. Results of another version say nothing about this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleHeat:
    """One heat, over all its repetitions. `held` of its `intervals` contain 1. `false_directions` counts the arms that
    were called faster or slower although none is. `claim_width` is the median half-width of the bounds, as a share.
    `step_bias` is the baseline's step time over that of a bare loop run alone before and after; None without one."""

    method: int
    version: str
    at: str
    workload: str
    device: str
    repetitions: int
    dropped: int
    intervals: int
    held: int
    false_directions: int
    claim_width: float
    step_bias: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRate:
    """The heats of one machine in total. `false_heats` counts those with any false direction; `false_bound` is the
    upper end of the one-sided 95 % Clopper-Pearson interval of their share. `claim_width` and `step_bias` are medians.
    """

    held: Rate
    false_heats: Rate
    false_bound: float | None
    claim_width: float
    step_bias: float | None


def outcome(
    rows: Sequence[Comparison], *, version: str, at: str, device: str, step_bias: float | None, seconds: float
) -> IdleHeat | None:
    """The result of one heat; None if it has no interval, because every arm was disturbed or failed."""
    arms = [row for row in rows if row.status is Status.OK and row.speedup_low is not None]
    if not arms:
        return None
    return IdleHeat(
        method=METHOD,
        version=version,
        at=at,
        workload=arms[0].workload,
        device=device,
        repetitions=min(row.repetitions for row in arms),
        dropped=max(row.dropped for row in arms),
        intervals=len(arms),
        held=sum((row.speedup_low or 0) <= 1 <= (row.speedup_high or 0) for row in arms),
        false_directions=sum(row.verdict in (Verdict.FASTER, Verdict.SLOWER) for row in arms),
        claim_width=statistics.median(width(row) for row in arms),
        step_bias=step_bias,
        seconds=seconds,
    )


def append(machine_id: str, heat: IdleHeat) -> Path:
    """Store the result of one heat of a machine."""
    return kept.append(_name(machine_id), heat)


def load(machine_id: str) -> list[IdleHeat]:
    """The machine's heats by the current method. Raises ValueError for a line that cannot be read."""
    return kept.load(_name(machine_id), _heat, METHOD)


def read(file: Path) -> list[IdleHeat]:
    """The heats in a file by the latest method in it. Raises ValueError for a line that cannot be read."""
    return kept.read(file, _heat, None)


def is_in(file: Path) -> bool:
    """Whether a file has heats of `run`, rather than outcomes of the gate."""
    return any("intervals" in fields for fields in kept.lines(file))


def _name(machine_id: str) -> str:
    return f"{machine_id}-run"


def _heat(fields: dict[str, Any]) -> IdleHeat:
    return IdleHeat(**fields)


def error_rate(heats: Sequence[IdleHeat]) -> ErrorRate | None:
    """The totals of these heats; None without heats."""
    if not heats:
        return None
    false_heats = Rate(seen=sum(heat.false_directions > 0 for heat in heats), tries=len(heats))
    biases = [heat.step_bias for heat in heats if heat.step_bias is not None]
    return ErrorRate(
        held=Rate(seen=sum(heat.held for heat in heats), tries=sum(heat.intervals for heat in heats)),
        false_heats=false_heats,
        false_bound=upper_bound(false_heats),
        claim_width=statistics.median(heat.claim_width for heat in heats),
        step_bias=statistics.median(biases) if biases else None,
    )
