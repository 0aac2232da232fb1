"""What else went on while arms were timed: grounds to drop rounds, found without looking at step times."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from harness.telemetry import cgroups
from harness.telemetry.gpus import Gpus

FOREIGN_SHARE = 0.05
"""Limit on the share of the cores' time taken by processes that are not ours."""

STEAL_SHARE = 0.02
"""Limit on the share of the cores' time that the hypervisor takes for others."""

THROTTLED_SHARE = 0.01
"""Limit on the share of wall time in which a quota held our processes back, or heat a GPU's clocks."""

STEP_S = 0.05
"""Limit on a jump of the calendar clock. Drivers slew a clock by at most 0.05 %, far less than this over a
repetition."""

SLEW_SHARE = 0.001
"""By how much the rate of the steered clock, which times the steps, may differ from the hardware clock's."""

_CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_THERMAL = "/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"

_COUNTED = {
    # Counters that some machines lack, by their field of Reading.
    "CPU quota": "throttled_s",
    "CPU heat": "thermal_events",
    "GPU heat": "gpu_throttled_s",
    "GPU processes": "gpu_processes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters since some start; None if the machine has no such counter. CPU times are in core-seconds over the cores
    that this process may run on; `own_s` is what this process and its descendants used of them. `reasons` says, by the
    name of the field, why a counter is None, if that is known."""

    monotonic_s: float
    raw_s: float
    boot_s: float
    calendar_s: float
    clock_source: str | None
    cores: int
    busy_s: float
    steal_s: float
    own_s: float
    throttled_s: float | None
    thermal_events: int | None
    gpu_throttled_s: float | None
    gpu_processes: int | None
    reasons: Mapping[str, str] = field(default_factory=dict)


def read(gpus: Gpus) -> Reading:
    """The machine's counters now. `gpus` are only those that the arms run on."""
    throttled_s, processes = gpus.throttled_s(), gpus.processes()
    answers = {"gpu_throttled_s": throttled_s, "gpu_processes": processes}
    cores = sorted(os.sched_getaffinity(0))
    own_s = family_cpu_s()
    times = psutil.cpu_times(percpu=True)
    # Cores can be offline, and a container may show fewer than the machine has.
    shown = [times[core] for core in cores if core < len(times)] or times
    return Reading(
        monotonic_s=time.clock_gettime(time.CLOCK_MONOTONIC),
        raw_s=time.clock_gettime(time.CLOCK_MONOTONIC_RAW),
        boot_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        calendar_s=time.clock_gettime(time.CLOCK_REALTIME),
        clock_source=_text(_CLOCK_SOURCE),
        cores=len(shown),
        busy_s=sum(item.user + item.nice + item.system + item.irq + item.softirq for item in shown),
        steal_s=sum(item.steal for item in shown),
        own_s=own_s,
        throttled_s=cgroups.throttled_s(),
        thermal_events=_thermal_events(),
        gpu_throttled_s=None if isinstance(throttled_s, str) else throttled_s,
        gpu_processes=None if isinstance(processes, str) else processes,
        reasons={name: answer for name, answer in answers.items() if isinstance(answer, str)},
    )


def family_cpu_s() -> float:
    """CPU time of this process and its descendants, including ended ones that were waited for, in seconds."""
    total_s = 0.0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def _text(file: Path) -> str | None:
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return None


def _thermal_events() -> int | None:
    counts = [_text(file) for file in Path("/").glob(_THERMAL.lstrip("/"))]
    known = [int(count) for count in counts if count]
    return sum(known) if known else None


def disturbances(before: Reading, after: Reading, *, arms: int) -> list[str]:
    """In words, what happened between two readings that makes the times between them unusable; empty if nothing did.

    `arms` is the number of GPU processes that are ours.
    """
    wall_s = after.raw_s - before.raw_s
    capacity_s = wall_s * after.cores
    # The two counters tick separately, so an idle machine can come out slightly below zero.
    foreign = max(0.0, (after.busy_s - before.busy_s) - (after.own_s - before.own_s)) / capacity_s
    steal = (after.steal_s - before.steal_s) / capacity_s
    stepped_s = (after.calendar_s - before.calendar_s) - (after.monotonic_s - before.monotonic_s)
    slew = (after.monotonic_s - before.monotonic_s) / wall_s - 1
    asleep_s = (after.boot_s - before.boot_s) - (after.monotonic_s - before.monotonic_s)
    throttled = _increase(before.throttled_s, after.throttled_s) / wall_s
    gpu_throttled = _increase(before.gpu_throttled_s, after.gpu_throttled_s) / wall_s
    strangers = max(count - arms for count in (before.gpu_processes or 0, after.gpu_processes or 0))
    checks = (
        (foreign > FOREIGN_SHARE, f"other processes took {foreign:.0%} of the cores"),
        (steal > STEAL_SHARE, f"the hypervisor took {steal:.0%} of the cores for others"),
        (throttled > THROTTLED_SHARE, f"the CPU quota held processes back for {throttled:.0%} of the time"),
        (_increase(before.thermal_events, after.thermal_events) > 0, "the CPU was throttled for heat"),
        (gpu_throttled > THROTTLED_SHARE, f"the GPU was throttled for {gpu_throttled:.0%} of the time"),
        (strangers > 0, f"{strangers} other processes held the GPU"),
        (abs(stepped_s) > STEP_S, f"the calendar clock was changed by {stepped_s:+.2f} s"),
        (abs(slew) > SLEW_SHARE, f"the clock drifted by {slew:+.2%} from the hardware clock"),
        (asleep_s > STEP_S, f"the machine slept for {asleep_s:.1f} s"),
        (before.clock_source != after.clock_source, f"the clock source became {after.clock_source}"),
    )
    return [text for is_so, text in checks if is_so]


def _increase(before: float | None, after: float | None) -> float:
    """0 if the counter is unknown: `unseen` names what cannot be seen."""
    return 0.0 if before is None or after is None else after - before


def unseen(before: Reading, after: Reading, device: str) -> list[str]:
    """In words, which disturbances the machine did not show between two readings, and why, if that is known."""
    found = []
    for what, field_name in _COUNTED.items():
        if device == "cpu" and what.startswith("GPU"):
            continue
        values = [getattr(reading, field_name) for reading in (before, after)]
        if None in values:
            reason = before.reasons.get(field_name) or after.reasons.get(field_name)
            found.append(f"{what} ({reason})" if reason else what)
        elif values[1] < values[0] and field_name != "gpu_processes":
            found.append(f"{what} (its counter ran backwards)")
    return found
