"""Activity of other programs is detected, and nothing is detected that is not there."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pynvml
import pytest

from harness.telemetry import conditions
from harness.telemetry.conditions import Reading, disturbances, unseen
from harness.telemetry.gpus import Gpus
from tests.nvml import FIRST, SECOND, Change, ask, fail, recover, show, violate

QUIET = Reading(
    monotonic_s=100.0,
    raw_s=100.0,
    boot_s=100.0,
    calendar_s=1000.0,
    clock_source="tsc",
    cores=2,
    busy_s=50.0,
    steal_s=1.0,
    own_s=40.0,
    throttled_s=0.0,
    thermal_events=0,
    gpu_throttled_s=0.0,
    gpu_processes=2,
)

LATER = dataclasses.replace(
    QUIET, monotonic_s=110.0, raw_s=110.0, boot_s=110.0, calendar_s=1010.0, busy_s=68.0, own_s=58.0
)


def test_ten_quiet_seconds_disturb_nothing() -> None:
    assert disturbances(QUIET, LATER, arms=2) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"busy_s": 70.0}, "other processes took 10% of the cores"),
        ({"steal_s": 2.0}, "the hypervisor took 5%"),
        ({"throttled_s": 0.5}, "the CPU quota held processes back for 5%"),
        ({"thermal_events": 1}, "throttled for heat"),
        ({"gpu_throttled_s": 0.5}, "the GPU was throttled for 5%"),
        ({"gpu_processes": 3}, "1 other processes held the GPU"),
        ({"calendar_s": 1009.0}, "the calendar clock was changed by -1.00 s"),
        ({"monotonic_s": 110.1, "boot_s": 110.1, "calendar_s": 1010.1}, "the clock drifted by +1.00% from"),
        ({"boot_s": 170.0}, "the machine slept for 60.0 s"),
        ({"clock_source": "hpet"}, "the clock source became hpet"),
    ],
)
def test_each_disturbance_is_named(changes: dict[str, Any], words: str) -> None:
    (found,) = disturbances(QUIET, dataclasses.replace(LATER, **changes), arms=2)
    assert words in found


def test_what_a_machine_does_not_show_is_said() -> None:
    blind = dataclasses.replace(
        QUIET, throttled_s=None, thermal_events=None, gpu_throttled_s=None, gpu_processes=None, clock_source=None
    )
    assert disturbances(blind, dataclasses.replace(LATER, clock_source=None), arms=2) == []
    assert unseen(blind, blind, "cpu") == ["CPU quota", "CPU heat"]
    assert unseen(blind, blind, "cuda") == ["CPU quota", "CPU heat", "GPU heat", "GPU processes"]
    assert unseen(QUIET, LATER, "cuda") == []


def test_what_only_one_reading_shows_was_not_seen() -> None:
    lost = dataclasses.replace(LATER, gpu_throttled_s=None, reasons={"gpu_throttled_s": "NVML says GPU is lost"})
    assert disturbances(QUIET, lost, arms=2) == []
    assert unseen(QUIET, lost, "cuda") == unseen(lost, LATER, "cuda") == ["GPU heat (NVML says GPU is lost)"]


def test_a_counter_that_ran_backwards_shows_nothing() -> None:
    reset = dataclasses.replace(LATER, throttled_s=-1.0, gpu_processes=1)
    assert unseen(QUIET, reset, "cuda") == ["CPU quota (its counter ran backwards)"]


def busy_cpu_s(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has used half a second of CPU time, however long that takes."""
    import psutil

    seen = psutil.Process(process.pid)
    while sum(seen.cpu_times()[:2]) < 0.5:
        time.sleep(0.02)


def test_the_work_of_our_own_processes_is_ours_after_they_have_ended_too() -> None:
    gpus = Gpus("cpu", ())
    before = conditions.read(gpus)
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        busy_cpu_s(child)
        alive = conditions.read(gpus)
    finally:
        child.kill()
        child.wait()
    ended = conditions.read(gpus)
    assert alive.own_s - before.own_s >= 0.5
    # Sums in a different order may differ in the last digit.
    assert ended.own_s >= alive.own_s - 1e-6
    assert ended.raw_s > before.raw_s and ended.cores >= 1


def test_the_work_of_strangers_is_not_ours() -> None:
    gpus = Gpus("cpu", ())
    before = conditions.read(gpus)
    # Its parent ends at once, so it is not a descendant of this process.
    script = (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "end = time.process_time() + 0.5\n"
        "while time.process_time() < end: pass\n"
        "os.write(1, b'done')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.read() == b"done"
    after = conditions.read(gpus)
    assert (after.busy_s - before.busy_s) - (after.own_s - before.own_s) > 0.3


def heat(device: int) -> None:
    violate(device, pynvml.NVML_PERF_POLICY_THERMAL, 10**12)


def boost() -> None:
    for policy in set(range(12)) - {pynvml.NVML_PERF_POLICY_THERMAL}:
        violate(0, policy, 10**12)


def heat_first() -> None:
    heat(0)


def heat_second() -> None:
    heat(1)


def cool() -> None:
    violate(0, pynvml.NVML_PERF_POLICY_THERMAL, 0)


def crowd() -> None:
    show(0, processes=5)


def crowd_second() -> None:
    show(1, processes=9)


def unload() -> None:
    fail("*", pynvml.NVML_ERROR_UNINITIALIZED)


def lose_second() -> None:
    fail("*", pynvml.NVML_ERROR_GPU_IS_LOST, device=1)


def nothing() -> None:
    pass


def gated(change: Change, start: Change = nothing) -> tuple[list[str], list[str]]:
    """What is found and what is not visible on the GPU of two one-rank arms, with this change between two readings."""
    gpus = Gpus("cuda", [FIRST, SECOND]).first(1)
    show(0, processes=2)
    violate(0, pynvml.NVML_PERF_POLICY_THERMAL, 1)
    start()
    before = conditions.read(gpus)
    recover()
    change()
    after = conditions.read(gpus)
    found = conditions.disturbances(before, after, arms=2)
    return [item for item in found if "GPU" in item], [
        item for item in conditions.unseen(before, after, "cuda") if "GPU" in item
    ]


@pytest.mark.parametrize("change", [nothing, boost, heat_second, crowd_second, lose_second])
def test_nothing_but_what_goes_on_on_its_own_gpus_spoils_a_gate(driver: Path, change: Change) -> None:
    assert ask(driver, gated, change) == ([], [])


@pytest.mark.parametrize(
    ("change", "words"), [(heat_first, "the GPU was throttled for"), (crowd, "3 other processes held the GPU")]
)
def test_what_goes_on_on_its_own_gpus_is_found(driver: Path, change: Change, words: str) -> None:
    (found,), unseen = ask(driver, gated, change)
    assert found.startswith(words) and unseen == []


def test_what_was_unknown_at_either_reading_was_not_seen(driver: Path) -> None:
    blind = ["GPU heat (NVML says Uninitialized)", "GPU processes (NVML says Uninitialized)"]
    assert ask(driver, gated, unload) == ([], blind)
    assert ask(driver, gated, nothing, unload) == ([], blind)
    assert ask(driver, gated, cool) == ([], ["GPU heat (its counter ran backwards)"])
