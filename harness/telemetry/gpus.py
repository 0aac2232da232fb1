"""The GPUs that a run uses, as NVML shows them. Opening NVML starts no CUDA context.

Each figure is a number or the text of why it is unknown: never 0 in its place, and no NVML error escapes this module.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

THROTTLE = {
    # Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML API reference) that mean the chip is held back.
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}

POLICIES = {
    # What holds clocks back, and its counter in nvmlDeviceGetViolationStatus (NVML API reference).
    "power": "NVML_PERF_POLICY_POWER",
    "thermal": "NVML_PERF_POLICY_THERMAL",
    "sync boost": "NVML_PERF_POLICY_SYNC_BOOST",
    "board limit": "NVML_PERF_POLICY_BOARD_LIMIT",
    "low utilization": "NVML_PERF_POLICY_LOW_UTILIZATION",
    "reliability": "NVML_PERF_POLICY_RELIABILITY",
    "application clocks": "NVML_PERF_POLICY_TOTAL_APP_CLOCKS",
    "base clocks": "NVML_PERF_POLICY_TOTAL_BASE_CLOCKS",
}

OF_THE_CHIP = "the run is on a MIG slice, and NVML tells this only of the whole chip"
UNNAMED_SLICE = "the chip is split by MIG, and CUDA does not tell which slice the run is on"
NOBODY = "NVML lists no processes, not even the arms' own, as in a container"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    """One CUDA device. `is_slice`: the handle is that of a part of a chip (MIG). If there is no handle, `reason` says
    why."""

    handle: Any = None
    is_slice: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """How to read one figure of a device. `is_sum`: sum over devices, not mean; `of_slice`: NVML reports it for a slice
    too."""

    read: Callable[[Any], float]
    is_sum: bool = False
    of_slice: bool = False


class Gpus:
    """CUDA's devices in CUDA's order. If nothing at all can be known of them, `reason` says why."""

    def __init__(self, device: str, uuids: Sequence[str]) -> None:
        """`uuids` are those that torch reports, one per device. They find the device however CUDA_VISIBLE_DEVICES and
        CUDA_DEVICE_ORDER number it."""
        self._unopened: str | None = None
        self._devices: tuple[_Device, ...] = ()
        self._nvml: Any = None
        if device != "cuda":
            self._unopened = "the run is on the CPU"
            return
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._unopened = _says(error)
            return
        self._devices = tuple(self._find(uuid) for uuid in uuids)

    @property
    def reason(self) -> str | None:
        """Why nothing is known of the devices, or of one of them; None if NVML has found all."""
        if self._unopened is None and not self._devices:
            return "torch gave no UUID by which to find the GPU"
        return self._unopened or next((item.reason for item in self._devices if item.reason), None)

    def first(self, count: int) -> Gpus:
        """Only the first `count` devices: those that an arm of as many ranks runs on."""
        chosen = copy.copy(self)
        chosen._devices = self._devices[:count]
        return chosen

    def sample(self) -> dict[str, float | str]:
        """One reading. Utilisation, clock and temperature are means over the devices; memory and power are sums."""
        nvml = self._nvml
        figures = {
            "gpu_util_pct": _Figure(read=lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "gpu_memory_bytes": _Figure(
                read=lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle).used, is_sum=True, of_slice=True
            ),
            "gpu_power_w": _Figure(read=lambda handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3, is_sum=True),
            "gpu_clock_hz": _Figure(read=lambda handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 1e6),
            "gpu_temperature_c": _Figure(read=self._temperature_c),
        }
        return {name: self._over_devices(figure) for name, figure in figures.items()}

    def throttle_reasons(self) -> set[str] | str:
        """What holds the devices back now, in words; empty if nothing does."""
        # Before driver 535 the function had the second name.
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        found = self.each(lambda handle: self._ask(names, handle))
        if isinstance(found, str):
            return found
        return {reason for bits in found for bit, reason in THROTTLE.items() if bits & bit}

    def throttled_s(self) -> float | str:
        """Seconds for which heat has held the clocks back, summed over the devices since their driver was loaded.

        Of the counters in `violations_s` only this one disqualifies a repetition. The others may tick while clocks
        boost normally, and would then drop every repetition: they must be checked on a GPU first.
        """
        return self._violation_s("thermal")

    def violations_s(self) -> dict[str, float | str]:
        """Seconds for which each policy has held the clocks back, summed over the devices, by its name in POLICIES."""
        return {policy: self._violation_s(policy) for policy in POLICIES}

    def processes(self) -> int | str:
        """The number of processes that compute on the devices, including ours."""
        # A driver only has the versions of its time. The function without a suffix is the binding's latest; if the
        # driver lacks it, the error is not an NVMLError.
        names = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
        found = self.each(lambda handle: len(self._ask(names, handle)), of_slice=True)
        if isinstance(found, str):
            return found
        return sum(found) if all(found) else NOBODY

    def energies_j(self) -> list[float] | str:
        """Each device's energy counter, in joules since its driver was loaded."""
        return self.each(lambda handle: self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)

    def driver(self) -> tuple[str | None, str | None]:
        """The driver's version with the CUDA release that it supports, as `580.95.05, CUDA 13.0`, and why the version
        or the release is unknown."""
        if self._unopened is not None:
            return None, self._unopened
        try:
            version: str = self._nvml.nvmlSystemGetDriverVersion()
        except self._nvml.NVMLError as error:
            return None, _says(error)
        release = self.driver_cuda()
        if isinstance(release, str):
            return version, f"which CUDA it supports: {release}"
        return f"{version}, CUDA {release[0]}.{release[1]}", None

    def driver_cuda(self) -> tuple[int, int] | str:
        """The latest CUDA release that the driver runs, as in (13, 0)."""
        if self._unopened is not None:
            return self._unopened
        try:
            number = int(self._ask(("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")))
        except self._nvml.NVMLError as error:
            return _says(error)
        return number // 1000, number % 1000 // 10

    def _find(self, uuid: str) -> _Device:
        """The device of this UUID, which torch gives without the prefix that distinguishes a chip from a slice."""
        reason: str | None = None
        for prefix in ("GPU-", "MIG-"):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByUUID(prefix + uuid)
                is_split = prefix == "GPU-" and self._is_split(handle)
            except self._nvml.NVMLError as error:
                # The first reason says more: for a lost chip it is no news that there is no such slice.
                reason = reason or _says(error)
                continue
            return _Device(reason=UNNAMED_SLICE) if is_split else _Device(handle=handle, is_slice=prefix == "MIG-")
        return _Device(reason=reason)

    def _is_split(self, chip: Any) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(chip)[0] == self._nvml.NVML_DEVICE_MIG_ENABLE)
        except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_FunctionNotFound):
            return False  # The chip or the driver does not support MIG.

    def _temperature_c(self, handle: Any) -> float:
        # The first name is to be removed in CUDA 14; the second came with driver 570.
        names = ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV")
        return float(self._ask(names, handle, self._nvml.NVML_TEMPERATURE_GPU))

    def _violation_s(self, policy: str) -> float | str:
        # NVML counts them in nanoseconds.
        return self._over_devices(
            _Figure(
                read=lambda handle: (
                    self._nvml.nvmlDeviceGetViolationStatus(handle, getattr(self._nvml, POLICIES[policy])).violationTime
                    * 1e-9
                ),
                is_sum=True,
            )
        )

    def _over_devices(self, figure: _Figure) -> float | str:
        values = self.each(figure.read, of_slice=figure.of_slice)
        if isinstance(values, str):
            return values
        return float(sum(values) if figure.is_sum else sum(values) / len(values))

    def each(self, read: Callable[[Any], T], *, of_slice: bool = False) -> list[T] | str:
        """`read` for each device's handle, or why one of them is unknown: some devices do not stand for all."""
        if self.reason is not None:
            return self.reason
        if not of_slice and any(device.is_slice for device in self._devices):
            return OF_THE_CHIP
        try:
            return [read(device.handle) for device in self._devices]
        except self._nvml.NVMLError as error:
            return _says(error)

    def _ask(self, names: Sequence[str], *arguments: Any) -> Any:
        """Call the first of these functions that both driver and binding have: names change between versions."""
        for name in names:
            with contextlib.suppress(self._nvml.NVMLError_FunctionNotFound):
                if hasattr(self._nvml, name):
                    return getattr(self._nvml, name)(*arguments)
        raise self._nvml.NVMLError(self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND)


def installed() -> list[str] | str:
    """The GPUs that NVML lists, whatever CUDA is allowed to see, each with its memory; or why none is known."""
    import pynvml as nvml

    found = []
    try:
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
            found.append(f"{nvml.nvmlDeviceGetName(handle)}, {memory / 2**30:.0f} GiB")
    except nvml.NVMLError as error:
        return _says(error)
    return found or "the driver lists none"


def _says(error: Exception) -> str:
    return f"NVML says {error}"
