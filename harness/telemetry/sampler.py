"""Memory, GPU (NVML) and CPU (psutil) of a running arm, sampled from outside its process.

Samples are taken while the arm runs its sustained window or, if it has none, before and after its turns: never during
timed steps that count. What a machine does not offer is unknown, with the reason: never 0.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field

import psutil

from harness.record import GPU_FIGURES, Measurement, note
from harness.telemetry import cgroups
from harness.telemetry.gpus import Gpus

LEAST_ENERGY_S = 2.0
"""A GPU's energy counter moves about ten times a second: over a shorter window its two ends could be a tenth off."""


BETWEEN_S = 0.25
"""The time in turns that one sample between turns covers: CPU time is counted in hundredths of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CpuTimes:
    """Seconds since some start: wall time, busy and stolen time of all cores, and the arm's own CPU time."""

    wall: float
    busy: float
    steal: float
    own: float


@dataclass(slots=True, kw_only=True)
class Samples:
    """What a window showed, one entry per sample; `unknown` has the first reason for each missing figure, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)
    throttle_reasons: set[str] = field(default_factory=set)
    energy_j: float | None = None
    unknown: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float | str) -> None:
        """Add one reading, or why there is none. A figure that lacks a reading is dropped, because its mean would not
        stand for the window: a GPU may have been lost in the middle of it."""
        if isinstance(value, str):
            self.unknown.setdefault(f"sample_{name}", value)
        else:
            self.values.setdefault(name, []).append(value)

    def add_throttle(self, found: set[str] | str) -> None:
        """Add what holds the GPUs back at this sample. What was seen remains, even if later samples fail."""
        if isinstance(found, str):
            self.unknown.setdefault("throttle_reasons", found)
        else:
            self.throttle_reasons |= found

    def add_energy(self, before: list[float] | str, after: list[float] | str) -> None:
        """Add each GPU's energy counter at both ends of the window, in joules."""
        spent = _spent_j(before, after)
        if isinstance(spent, str):
            self.unknown["sustained_energy_j"] = spent
        else:
            self.energy_j = spent

    def store(self, measurement: Measurement) -> None:
        for name, values in self.values.items():
            if f"sample_{name}" not in self.unknown:
                setattr(measurement, f"sample_{name}", values)
        unknown = dict(self.unknown)
        is_seen = GPU_FIGURES not in unknown and "throttle_reasons" not in unknown
        if is_seen or self.throttle_reasons:
            measurement.throttle_reasons = sorted(self.throttle_reasons)
        if not is_seen and self.throttle_reasons:
            unknown["throttle_reasons"] += ", so what was seen is incomplete"
        measurement.sustained_energy_j = self.energy_j
        measurement.unknown = [note(name, reason) for name, reason in unknown.items()]


def _spent_j(before: list[float] | str, after: list[float] | str) -> float | str:
    """The energy that all GPUs together used between two readings, in joules, or why that is unknown."""
    if isinstance(before, str):
        return before
    if isinstance(after, str):
        return after
    spent_j = [end - start for start, end in zip(before, after, strict=True)]
    if min(spent_j) < 0:
        return "the energy counter ran backwards"
    if min(spent_j) == 0:
        # The counter is updated about ten times a second, and no chip uses no energy.
        return "the window was too short for the energy counter to move"
    return sum(spent_j)


class Sampler:
    """Samples one arm's window: call `start`, `sample` on every tick, and `stop`."""

    def __init__(self, pid: int, gpus: Gpus, ranks: int, energy_from_s: float = LEAST_ENERGY_S) -> None:
        """`energy_from_s` is the shortest window whose energy is reported."""
        self._pid, self._energy_from_s = pid, energy_from_s
        self._gpus = gpus.first(ranks)
        self._cores, self._allowed_cores = os.cpu_count() or 1, cgroups.cores()
        self._samples = Samples()

    def start(self) -> None:
        self._family = _Family(self._pid)
        self._started = self._last = self._family.cpu_times()
        self._energies_start_j = self._gpus.energies_j()

    def sample(self) -> None:
        now, before = self._family.cpu_times(), self._last
        capacity_s = (now.wall - before.wall) * self._cores
        if capacity_s <= 0:
            return
        share = 100 / capacity_s
        self._samples.add("t_s", now.wall - self._started.wall)
        self._samples.add("rss_bytes", float(self._family.rss_bytes()))
        self._samples.add("cpu_pct", 100 * (now.own - before.own) / ((now.wall - before.wall) * self._allowed_cores))
        # The two counters tick separately, so a short interval can come out slightly below zero.
        self._samples.add("foreign_cpu_pct", max(0.0, (now.busy - before.busy - now.own + before.own) * share))
        self._samples.add("steal_pct", (now.steal - before.steal) * share)
        if self._gpus.reason is None:
            for name, value in self._gpus.sample().items():
                self._samples.add(name, value)
            self._samples.add_throttle(self._gpus.throttle_reasons())
        self._last = now

    def stop(self) -> Samples:
        """The samples of the window: at least one, over the whole window if it was shorter than a tick."""
        if not self._samples.values:
            self.sample()
        if self._gpus.reason is None:
            window_s = time.monotonic() - self._started.wall
            if window_s < self._energy_from_s:
                self._energies_start_j = (
                    f"the window of {window_s:.1f} s is too short for a counter that moves about ten times a second"
                )
            self._samples.add_energy(self._energies_start_j, self._gpus.energies_j())
        else:
            self._samples.unknown[GPU_FIGURES] = self._gpus.reason
        return self._samples


class BetweenTurns:
    """CPU use and memory of an arm over its turns, read before and after each: `begin`, the turn, `end`."""

    def __init__(self, pid: int, measurement: Measurement) -> None:
        """The samples go into the measurement."""
        self._family, self._measurement = _Family(pid), measurement
        self._cores = cgroups.cores()
        self._turns_s = self._wall_s = self._own_s = 0.0

    def begin(self) -> None:
        self._before = self._family.cpu_times()

    def end(self) -> None:
        now, before = self._family.cpu_times(), self._before
        self._turns_s += now.wall - before.wall
        self._wall_s, self._own_s = self._wall_s + now.wall - before.wall, self._own_s + now.own - before.own
        if self._wall_s < BETWEEN_S:
            return
        self._measurement.sample_t_s.append(self._turns_s)
        self._measurement.sample_rss_bytes.append(float(self._family.rss_bytes()))
        self._measurement.sample_cpu_pct.append(100 * self._own_s / (self._wall_s * self._cores))
        self._wall_s = self._own_s = 0.0


class _Family:
    """An arm's processes. The list is made once: walking the process table at every sample would cost a millisecond."""

    def __init__(self, pid: int) -> None:
        arm = psutil.Process(pid)
        self._processes = [arm, *arm.children(recursive=True)]

    def cpu_times(self) -> _CpuTimes:
        system = psutil.cpu_times()
        own = 0.0
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                own += spent.user + spent.system
        busy = system.user + system.nice + system.system + system.irq + system.softirq
        return _CpuTimes(wall=time.monotonic(), busy=busy, steal=system.steal, own=own)

    def rss_bytes(self) -> int:
        total = 0
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total
