"""Telemetry of a window of an arm's work, sampled from a real process and a library with NVML's interface."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pynvml
import pytest

from harness.record import Measurement
from harness.telemetry.gpus import Gpus
from harness.telemetry.sampler import Sampler
from tests.nvml import FIRST, SECOND, Change, ask, fail, show

SAMPLED = {field.name for field in dataclasses.fields(Measurement) if field.name.startswith("sample_gpu_")}


def window(uuids: Sequence[str], ranks: int, *changes: Change, energy_from_s: float = 0.0) -> Measurement:
    """The telemetry of a working process: one sample, then the changes, then another sample."""
    measurement = Measurement()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as arm:
        try:
            sampler = Sampler(arm.pid, Gpus("cuda", uuids), ranks, energy_from_s)
            sampler.start()
            sampler.sample()
            for change in changes:
                change()
            sampler.sample()
            sampler.stop().store(measurement)
        finally:
            arm.kill()
    return measurement


def spend() -> None:
    show(0, energy_mj=5250, power_mw=250500, clock_reasons=0x20)
    show(1, energy_mj=9500)


def stand_still() -> None:
    show(0, energy_mj=5250)


def run_backwards() -> None:
    show(0, energy_mj=5250)
    show(1, energy_mj=100)


def lose() -> None:
    fail("*", pynvml.NVML_ERROR_GPU_IS_LOST, device=1)


def unload() -> None:
    fail("*", pynvml.NVML_ERROR_UNINITIALIZED)


def hide_energy() -> None:
    fail("nvmlDeviceGetTotalEnergyConsumption", pynvml.NVML_ERROR_TIMEOUT)


def test_a_window_is_sampled_on_the_gpus_of_its_ranks(driver: Path) -> None:
    alone = ask(driver, window, [FIRST, SECOND], 1, spend)
    assert alone.unknown == []
    assert alone.sample_gpu_power_w == [150.5, 250.5]
    assert alone.sample_gpu_util_pct == [70.0, 70.0]
    assert alone.sample_gpu_memory_bytes == [1e9, 1e9]
    assert alone.sample_gpu_clock_hz == [1.41e9, 1.41e9]
    assert alone.sample_gpu_temperature_c == [45.0, 45.0]
    assert alone.throttle_reasons == ["software thermal slowdown"]
    assert alone.sustained_energy_j == 0.25
    assert len(alone.sample_t_s) == len(alone.sample_cpu_pct) == 2
    both = ask(driver, window, [FIRST, SECOND], 2, spend)
    assert both.sample_gpu_power_w == [401.0, 501.0]
    assert both.sustained_energy_j == 0.75


def short_window(uuids: Sequence[str], ranks: int) -> Measurement:
    return window(uuids, ranks, spend, energy_from_s=3600.0)


def test_the_energy_of_a_short_window_is_unknown(driver: Path) -> None:
    found = ask(driver, short_window, [FIRST], 1)
    assert found.sustained_energy_j is None
    assert "is too short for a counter" in found.unknown[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (stand_still, "the window was too short for the energy counter to move"),
        (run_backwards, "the energy counter ran backwards"),
        (hide_energy, "NVML says Timeout"),
    ],
)
def test_energy_that_was_not_counted_is_unknown(driver: Path, change: Change, reason: str) -> None:
    found = ask(driver, window, [FIRST, SECOND], 2, change)
    assert found.sustained_energy_j is None
    assert found.unknown == [f"sustained_energy_j is unknown: {reason}"]
    assert found.throttle_reasons == [] and found.sample_gpu_power_w == [401.0, 401.0]


@pytest.mark.parametrize(("change", "words"), [(lose, "GPU is lost"), (unload, "Uninitialized")])
def test_a_gpu_that_is_lost_in_the_window_leaves_its_figures_unknown(driver: Path, change: Change, words: str) -> None:
    found = ask(driver, window, [FIRST, SECOND], 2, change)
    names = {*SAMPLED, "throttle_reasons", "sustained_energy_j"}
    assert sorted(found.unknown) == sorted(f"{name} is unknown: NVML says {words}" for name in names)
    assert all(getattr(found, name) == [] for name in SAMPLED)
    assert found.throttle_reasons is None and found.sustained_energy_j is None
    assert len(found.sample_cpu_pct) == 2


def test_the_loss_of_another_gpu_is_no_loss(driver: Path) -> None:
    found = ask(driver, window, [FIRST, SECOND], 1, lose, spend)
    assert found.unknown == []
    assert found.sample_gpu_power_w == [150.5, 250.5] and found.sustained_energy_j == 0.25


def throttled_and_lost() -> Measurement:
    show(0, clock_reasons=0x20)
    return window([FIRST, SECOND], 2, lose)


def test_what_was_seen_to_hold_a_gpu_back_is_kept(driver: Path) -> None:
    found = ask(driver, throttled_and_lost)
    assert found.throttle_reasons == ["software thermal slowdown"]
    assert "throttle_reasons is unknown: NVML says GPU is lost, so what was seen is incomplete" in found.unknown


def test_without_nvml_a_window_has_one_reason(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").touch()
    found = ask(tmp_path, window, [FIRST], 1)
    assert found.unknown == ["GPU figures are unknown: NVML says NVML Shared Library Not Found"]
    assert found.throttle_reasons is None and found.sustained_energy_j is None and found.sample_gpu_power_w == []
