"""What trackers call a run: one arm with its configuration, its metrics and its steps."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.record import Machine, Record
from reports.formats import export
from results.compare import Comparison, compare

READABLE = 100
"""The most characters of an arm's name in a file name."""

DESCRIBES = ("workload", "techniques", "compute", "status", "verdict", "reason", "method", "command")
"""Fields of a comparison that describe the arm and its result in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """`config` describes the arm in words, `metrics` are its known and finite figures under the names of
    results.compare.Comparison. `step_times_s` has the timed steps of each process, named like `repetition_1` or
    `repetition_1_copy_2`: the warm-up from the first step on, then those of the sustained window and of the rounds."""

    run_id: str
    started_at: str
    config: Mapping[str, str | int | float]
    metrics: Mapping[str, float]
    step_times_s: Mapping[str, Sequence[float]]

    @property
    def name(self) -> str:
        return f"{self.config['workload']} {self.config['techniques']}"

    @property
    def slug(self) -> str:
        """The name as a unique file name."""
        readable = re.sub(r"[^A-Za-z0-9_+.-]+", "_", self.name).strip(".")[:READABLE]
        return f"{readable}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"


def arms(records: Sequence[Record], machines: Sequence[Machine], machine: Machine) -> list[Arm]:
    """The arms of a run, the baseline of each workload first. If there are several machines, absolute figures are those
    of `machine`."""
    devices = {item.machine_id: item.device_name for item in machines}
    own: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda item: (item.repetition, item.heat_part, item.copy)):
        own[record.workload, record.techniques].append(record)
    return [_arm(row, own[row.workload, row.techniques], devices) for row in compare(records, machine)]


def _arm(row: Comparison, records: Sequence[Record], devices: Mapping[str, str]) -> Arm:
    plain, first = export.plain(row), records[0]
    shape = {name: getattr(first, name) for name in ("batch", "sequence", "world_size", "device")}
    names = dict.fromkeys(devices[record.machine_id] for record in records if record.machine_id in devices)
    config = shape | {"device_name": ", ".join(names)} | {name: plain.pop(name) for name in DESCRIBES}
    steps: dict[str, list[float]] = {}
    for record in records:
        measured = record.measurement
        taken = (measured.warmup_step_times_s, measured.sustained_step_times_s, measured.round_step_times_s)
        steps[_process(record)] = [time_s for times_s in taken for time_s in times_s]
    return Arm(
        run_id=first.run_id,
        started_at=min(record.started_at for record in records),
        config={name: value for name, value in config.items() if value is not None},
        metrics={
            name: float(value)
            for name, value in plain.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        step_times_s={name: times_s for name, times_s in steps.items() if times_s},
    )


def _process(record: Record) -> str:
    """The name of the record's process among those of its arm."""
    part = f"_part_{record.heat_part}" if record.heat_part else ""
    copy = f"_copy_{record.copy}" if record.copy else ""
    return f"repetition_{record.repetition}{part}{copy}"
