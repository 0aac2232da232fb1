"""What trackers call a run: one arm with what it was, what came of it, and its steps."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.record import Machine, Record
from reports.formats import export
from results.compare import Comparison, compare

DESCRIBES = ("workload", "techniques", "compute", "status", "verdict", "reason", "method", "command")
"""Fields of a comparison that say what an arm was, and what was found, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """`config` is what was asked for, `metrics` what came of it by the names of results.compare.Comparison, each known
    and finite. `step_times_s` has the timed steps of each repetition: the first, the warm-up, and the rounds'."""

    run_id: str
    started_at: str
    config: Mapping[str, str | int | float]
    metrics: Mapping[str, float]
    step_times_s: Mapping[int, Sequence[float]]

    @property
    def name(self) -> str:
        return f"{self.config['workload']} {self.config['techniques']}"

    @property
    def slug(self) -> str:
        """The same as a file may be called."""
        return re.sub(r"[^A-Za-z0-9_+.-]+", "_", self.name).strip(".")


def arms(records: Sequence[Record], machine: Machine) -> list[Arm]:
    """The arms of a run, baselines first."""
    own: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda item: (item.repetition, item.heat_part, item.copy)):
        own[record.workload, record.techniques].append(record)
    return [_arm(row, own[row.workload, row.techniques], machine) for row in compare(records, machine)]


def _arm(row: Comparison, records: Sequence[Record], machine: Machine) -> Arm:
    plain, first = export.plain(row), records[0]
    shape = {name: getattr(first, name) for name in ("batch", "sequence", "world_size", "device")}
    config = shape | {"device_name": machine.device_name} | {name: plain.pop(name) for name in DESCRIBES}
    steps: dict[int, list[float]] = defaultdict(list)
    for record in records:
        measured = record.measurement
        steps[record.repetition] += [*measured.warmup_step_times_s, *measured.round_step_times_s]
    return Arm(
        run_id=first.run_id,
        started_at=min(record.started_at for record in records),
        config={name: value for name, value in config.items() if value is not None},
        metrics={
            name: float(value)
            for name, value in plain.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        step_times_s={repetition: times for repetition, times in steps.items() if times},
    )
