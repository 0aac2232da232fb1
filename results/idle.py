"""How often `run` is wrong on this machine: heats in which every rival is an idle copy of the baseline.

What a heat came to is kept a line each in the user's data folder, one file a machine, and never rewritten.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.record import Status
from results.calibration import Rate, folder, upper_bound
from results.compare import Comparison, Verdict, width

METHOD = 1
"""Of measuring and concluding. What another method came to says nothing about this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleHeat:
    """One heat, over all its repetitions. `held` of its `intervals` hold 1, and so many arms were said to be faster or
    slower though none is. `claim_width` is half the median width of the bounds, as a share. `step_bias` is the
    baseline's step time over that of a bare loop that ran alone before and after, None where there was none."""

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
    """What the heats of one machine add up to. `false_heats` had any false direction, and `false_bound` is the upper
    end of the one-sided 95 % Clopper-Pearson interval of their share. The widths and biases are medians."""

    held: Rate
    false_heats: Rate
    false_bound: float | None
    claim_width: float
    step_bias: float | None


def outcome(
    rows: Sequence[Comparison], *, version: str, at: str, device: str, step_bias: float | None, seconds: float
) -> IdleHeat | None:
    """What one heat came to; None if it has no interval, because all was disturbed or failed."""
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


def file_of(machine_id: str) -> Path:
    return folder() / f"{machine_id}-run.jsonl"


def append(machine_id: str, heat: IdleHeat) -> Path:
    """Keep what one heat of a machine came to."""
    file = file_of(machine_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as lines:
        lines.write(json.dumps(dataclasses.asdict(heat)) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
    return file


def load(machine_id: str) -> list[IdleHeat]:
    """The machine's heats by the present method. Raises ValueError for a line that cannot be read."""
    file = file_of(machine_id)
    return read(file) if file.exists() else []


def read(file: Path) -> list[IdleHeat]:
    """A file's heats by the present method. Raises ValueError for a line that cannot be read."""
    found = []
    for line in file.read_text().splitlines():
        try:
            fields = json.loads(line)
            if fields["method"] == METHOD:
                found.append(IdleHeat(**fields))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"calibration {str(file)!r} cannot be read ({error}): mend it or calibrate anew"
            ) from error
    return found


def error_rate(heats: Sequence[IdleHeat]) -> ErrorRate | None:
    """None where there are no heats."""
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
