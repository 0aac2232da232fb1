"""Timing of steps on the device that does the work. One clock is chosen for the life of an arm."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTimes:
    """Seconds of each step of a block, and of the whole block by the host's clock between synchronised ends."""

    step_times_s: list[float]
    host_s: float


class Clock(Protocol):
    """`start`, then `mark` at the end of each step, then `stop`. Steps are contiguous: nothing between them is lost."""

    def start(self) -> None: ...
    def mark(self) -> None: ...
    def stop(self) -> BlockTimes: ...


class HostClock:
    """perf_counter_ns around work that is done when the call returns, as on a CPU."""

    def start(self) -> None:
        self._marks_ns = [time.perf_counter_ns()]

    def mark(self) -> None:
        self._marks_ns.append(time.perf_counter_ns())

    def stop(self) -> BlockTimes:
        marks = self._marks_ns
        steps = [(end - begin) * 1e-9 for begin, end in pairwise(marks)]
        return BlockTimes(step_times_s=steps, host_s=(marks[-1] - marks[0]) * 1e-9)


class DeviceClock:
    """One timing event per step on the accelerator's stream; the host synchronises only at both ends of the block."""

    def start(self) -> None:
        torch.accelerator.synchronize()
        self._start_ns = time.perf_counter_ns()
        self._events: list[torch.Event] = []
        self.mark()

    def mark(self) -> None:
        event = torch.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def stop(self) -> BlockTimes:
        torch.accelerator.synchronize()
        host_s = (time.perf_counter_ns() - self._start_ns) * 1e-9
        # elapsed_time is in milliseconds.
        steps = [begin.elapsed_time(end) * 1e-3 for begin, end in pairwise(self._events)]
        return BlockTimes(step_times_s=steps, host_s=host_s)


def clock_for(device: torch.device) -> Clock:
    return HostClock() if device.type == "cpu" else DeviceClock()
