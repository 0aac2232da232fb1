"""What goes on beside the arms is seen, and nothing is seen that is not there."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from typing import Any

import pytest

from harness import conditions
from harness.conditions import Reading, disturbances, unseen
from harness.telemetry import Gpus

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
        ({"calendar_s": 1009.0}, "the calendar clock was set by -1.00 s"),
        ({"monotonic_s": 110.1, "boot_s": 110.1, "calendar_s": 1010.1}, "the clock ran +1.00% beside"),
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
    assert unseen(blind, "cpu") == ["CPU quota", "CPU heat"]
    assert unseen(blind, "cuda") == ["CPU quota", "CPU heat", "GPU clocks", "GPU processes"]


def busy_cpu_s(process: subprocess.Popen[bytes]) -> None:
    """Let it use half a second of CPU time, however long that takes."""
    import psutil

    seen = psutil.Process(process.pid)
    while sum(seen.cpu_times()[:2]) < 0.5:
        time.sleep(0.02)


def test_the_work_of_our_own_processes_is_ours_after_they_have_ended_too() -> None:
    gpus = Gpus("cpu", 0)
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
    assert ended.own_s >= alive.own_s
    assert ended.raw_s > before.raw_s and ended.cores >= 1


def test_the_work_of_strangers_is_not_ours() -> None:
    gpus = Gpus("cpu", 0)
    before = conditions.read(gpus)
    # Its parent ends at once, so that it is nobody's child of ours.
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
