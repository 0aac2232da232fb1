"""Memory, GPU (NVML) and CPU (psutil) of a running arm, sampled from outside its process.

Samples are taken while the arm runs its sustained window, never between the ends of a timed round. What a machine does
not offer is unknown, with the reason: never 0.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from harness.record import Measurement

THROTTLE = {
    # Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML API reference) that mean the chip is held back.
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _CpuTimes:
    """Seconds since some start: wall, all cores' busy and stolen time, and the arm's own."""

    wall: float
    busy: float
    steal: float
    own: float


@dataclass(slots=True, kw_only=True)
class Samples:
    """What a window showed, one entry a sample, and the reasons for what is missing."""

    values: dict[str, list[float]] = field(default_factory=dict)
    throttle_reasons: set[str] = field(default_factory=set)
    energy_j: float | None = None

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def store(self, measurement: Measurement, unknown: list[str]) -> None:
        for name, values in self.values.items():
            setattr(measurement, f"sample_{name}", values)
        measurement.throttle_reasons = sorted(self.throttle_reasons)
        measurement.sustained_energy_j = self.energy_j
        measurement.unknown = unknown


class Gpus:
    """The NVIDIA GPUs as NVML shows them. Opening it starts no CUDA context. Unavailable: `reason` says why."""

    def __init__(self, device: str, count: int) -> None:
        self.reason: str | None = None
        self._handles: list[Any] = []
        if device != "cuda":
            self.reason = "GPU figures are unknown: the run is on the CPU"
            return
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._handles = [self._handle(index) for index in range(count)]
        except pynvml.NVMLError as error:
            self.reason = f"GPU figures are unknown: NVML says {error}"

    def _handle(self, index: int) -> Any:
        """CUDA's device `index`, which CUDA_VISIBLE_DEVICES may number otherwise than NVML does."""
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        if not visible:
            return self._nvml.nvmlDeviceGetHandleByIndex(index)
        name = visible[index].strip()
        if name.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml.nvmlDeviceGetHandleByUUID(name)

    def sample(self, into: Samples, ranks: int) -> None:
        """Utilisation, clock and temperature are means over the arm's GPUs; memory and power are sums."""
        handles = self._handles[:ranks]
        if not handles:
            return
        nvml = self._nvml
        readings: dict[str, tuple[bool, Callable[[Any], float]]] = {
            "gpu_util_pct": (False, lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "gpu_memory_bytes": (True, lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "gpu_power_w": (True, lambda handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
            "gpu_clock_hz": (False, lambda handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 1e6),
            "gpu_temperature_c": (
                False,
                lambda handle: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            ),
        }
        for name, (is_sum, read) in readings.items():
            with contextlib.suppress(nvml.NVMLError):
                total = sum(read(handle) for handle in handles)
                into.add(name, total if is_sum else total / len(handles))
        with contextlib.suppress(nvml.NVMLError):
            for handle in handles:
                bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
                into.throttle_reasons.update(reason for bit, reason in THROTTLE.items() if bits & bit)

    def free_bytes(self) -> int | None:
        """Free memory of the fullest GPU; None where there is none."""
        if not self._handles:
            return None
        return min(int(self._nvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in self._handles)

    def throttled_s(self) -> float | None:
        """Seconds for which heat or a hardware limit has held the chips' clocks back, summed; None where unknown."""
        if not self._handles:
            return None
        policies = ("NVML_PERF_POLICY_THERMAL", "NVML_PERF_POLICY_RELIABILITY", "NVML_PERF_POLICY_BOARD_LIMIT")
        try:
            violations = [
                self._nvml.nvmlDeviceGetViolationStatus(handle, getattr(self._nvml, policy)).violationTime
                for handle in self._handles
                for policy in policies
            ]
        except self._nvml.NVMLError:
            return None
        # NVML counts them in nanoseconds.
        return float(sum(violations)) * 1e-9

    def processes(self) -> int | None:
        """Processes that compute on the chips, ours among them; None where none can be seen."""
        if not self._handles:
            return None
        try:
            counts = [len(self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)) for handle in self._handles]
        except self._nvml.NVMLError:
            return None
        # In a container NVML may list nobody, not even us.
        return sum(counts) or None

    def energy_j(self, ranks: int) -> float | None:
        """The chips' energy counters, summed; None where they have none."""
        if not self._handles:
            return None
        try:
            counters = [self._nvml.nvmlDeviceGetTotalEnergyConsumption(item) for item in self._handles[:ranks]]
        except self._nvml.NVMLError:
            return None
        return float(sum(counters)) / 1e3


class Sampler:
    """Samples one arm's window: call `start`, `sample` on every tick, and `stop`."""

    def __init__(self, pid: int, gpus: Gpus, ranks: int) -> None:
        self._arm = psutil.Process(pid)
        self._gpus, self._ranks = gpus, ranks
        self._cores = os.cpu_count() or 1
        self._samples = Samples()

    def start(self) -> None:
        # The list of processes is taken once: walking the process table costs a millisecond at every sample.
        self._processes = [self._arm, *self._arm.children(recursive=True)]
        self._started = self._last = self._cpu_times()
        self._energy_start_j = self._gpus.energy_j(self._ranks)

    def sample(self) -> None:
        now, before = self._cpu_times(), self._last
        capacity_s = (now.wall - before.wall) * self._cores
        if capacity_s <= 0:
            return
        share = 100 / capacity_s
        self._samples.add("t_s", now.wall - self._started.wall)
        self._samples.add("rss_bytes", float(self._rss_bytes()))
        self._samples.add("cpu_pct", (now.own - before.own) * share)
        # The two counters tick separately, so a short interval can come out slightly below zero.
        self._samples.add("foreign_cpu_pct", max(0.0, (now.busy - before.busy - now.own + before.own) * share))
        self._samples.add("steal_pct", (now.steal - before.steal) * share)
        self._gpus.sample(self._samples, self._ranks)
        self._last = now

    def stop(self) -> Samples:
        """The samples of the window; at least one, over the whole window if it was shorter than a tick."""
        if not self._samples.values:
            self.sample()
        if self._energy_start_j is not None:
            end_j = self._gpus.energy_j(self._ranks)
            self._samples.energy_j = None if end_j is None else end_j - self._energy_start_j
        return self._samples

    def _cpu_times(self) -> _CpuTimes:
        system = psutil.cpu_times()
        own = 0.0
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                own += spent.user + spent.system
        busy = system.user + system.nice + system.system + system.irq + system.softirq
        return _CpuTimes(wall=time.monotonic(), busy=busy, steal=system.steal, own=own)

    def _rss_bytes(self) -> int:
        total = 0
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total
