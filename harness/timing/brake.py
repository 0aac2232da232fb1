"""A slow-down of known size added to every step of an arm, to test what a gate can detect."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import torch


class Brake(Protocol):
    """Call `hold` at the end of each step's work, then `learn` with the times of the block's steps.

    `held_share` is the share by which the steps really became longer; the first block may have been left alone.
    """

    def hold(self, begun_ns: int) -> None: ...
    def learn(self, step_times_s: Sequence[float]) -> None: ...
    @property
    def held_share(self) -> float: ...


class HostBrake:
    """Keeps one core busy after each step, for a share of the time that the step took."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._worked_ns = self._held_ns = 0

    def hold(self, begun_ns: int) -> None:
        """`begun_ns` is `perf_counter_ns` at the start of the step."""
        done_ns = time.perf_counter_ns()
        worked_ns = done_ns - begun_ns
        end_ns = done_ns + round(self._share * worked_ns)
        while (now_ns := time.perf_counter_ns()) < end_ns:
            pass
        self._worked_ns += worked_ns
        self._held_ns += now_ns - done_ns

    def learn(self, step_times_s: Sequence[float]) -> None:
        """Nothing to learn: the host has measured the step itself."""

    @property
    def held_share(self) -> float:
        return self._held_ns / self._worked_ns if self._worked_ns else 0.0


class DeviceBrake:
    """Queues a kernel after each step that waits on the device, for a share of the mean step of the last block.

    The host runs ahead of the device, so it cannot know how long the current step takes.
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
        """Cycles per second of the waiting kernel, from the second of two waits: the first may load the kernel."""
        for _ in range(2):
            wait = _timed_sleep(self.PROBE_CYCLES)
            wait[1].synchronize()
        return self.PROBE_CYCLES / _seconds(*wait)

    def hold(self, begun_ns: int) -> None:
        """Nothing is held in the first blocks, until a warm step is known."""
        if self._step_s is not None:
            self._waits.append(_timed_sleep(round(self._share * self._step_s * self._cycles_per_s)))

    def learn(self, step_times_s: Sequence[float]) -> None:
        """By now the waits are over: the clock that measured these times has synchronised."""
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
