"""A slow-down of a known size, put into every step of an arm: with it a gate is asked what it can see."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import torch


class Brake(Protocol):
    """`hold` at the end of each step's work, then `learn` from the times that the block's steps took.

    `held_share` is by what share the steps were really made longer; the first block may have been left alone.
    """

    def hold(self, begun_ns: int) -> None: ...
    def learn(self, step_times_s: Sequence[float]) -> None: ...
    @property
    def held_share(self) -> float: ...


class HostBrake:
    """Keeps one core busy for the share of the time that the step has taken so far."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._worked_ns = self._held_ns = 0

    def hold(self, begun_ns: int) -> None:
        """`begun_ns` is `perf_counter_ns` at the step's beginning."""
        done_ns = time.perf_counter_ns()
        worked_ns = done_ns - begun_ns
        end_ns = done_ns + round(self._share * worked_ns)
        while (now_ns := time.perf_counter_ns()) < end_ns:
            pass
        self._worked_ns += worked_ns
        self._held_ns += now_ns - done_ns

    def learn(self, step_times_s: Sequence[float]) -> None:
        """Nothing to learn: the host has seen the step's own time."""

    @property
    def held_share(self) -> float:
        return self._held_ns / self._worked_ns if self._worked_ns else 0.0


class DeviceBrake:
    """Queues a kernel behind each step that waits on the device, for the share of what the last block's steps took.

    The host runs ahead of the device, so that it cannot know how long the step at hand takes.
    """

    PROBE_CYCLES = 20_000_000

    def __init__(self, share: float) -> None:
        self._share = share
        self._step_s: float | None = None
        self._blocks = 0
        self._worked_s = self._held_s = 0.0
        self._waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._cycles_per_s = self._measure()

    def _measure(self) -> float:
        """Cycles of the waiting kernel in a second, from the second of two waits: the first may load the kernel."""
        for _ in range(2):
            wait = _timed_sleep(self.PROBE_CYCLES)
            wait[1].synchronize()
        return self.PROBE_CYCLES / _seconds(*wait)

    def hold(self, begun_ns: int) -> None:
        """Nothing is held in the first blocks, as long as no warm step is known."""
        if self._step_s is not None:
            self._waits.append(_timed_sleep(round(self._share * self._step_s * self._cycles_per_s)))

    def learn(self, step_times_s: Sequence[float]) -> None:
        """The waits are over: the clock that took these times has synchronised."""
        held_s = sum(_seconds(*wait) for wait in self._waits)
        self._waits.clear()
        worked_s = sum(step_times_s) - held_s
        if self._step_s is not None:
            self._worked_s += worked_s
            self._held_s += held_s
        # The first step may compile, load kernels, and start the device.
        if self._blocks:
            self._step_s = worked_s / len(step_times_s)
        self._blocks += 1

    @property
    def held_share(self) -> float:
        return self._held_s / self._worked_s if self._worked_s else 0.0


def _timed_sleep(cycles: int) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    """Queue a wait on the device between two timing events."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    torch.cuda._sleep(cycles)
    end.record()
    return begin, end


def _seconds(begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
    # elapsed_time is in milliseconds.
    return float(begin.elapsed_time(end)) * 1e-3


def brake_for(share: float, device: torch.device) -> Brake:
    """Raises ValueError for a share that is not above 0."""
    if not share > 0:
        raise ValueError(f"slow-down {share} is not above 0: give a share of a step, such as 0.05")
    return HostBrake(share) if device.type == "cpu" else DeviceBrake(share)
