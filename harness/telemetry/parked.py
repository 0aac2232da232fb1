"""Whether an arm leaves the cores alone between its turns."""

from __future__ import annotations

import contextlib
import time

import psutil

PARKED_CORES = 0.2
"""A parked arm that uses more of a core than this takes what the others need, and is ended for it."""
LEAST_S = 0.3
"""The shortest wait to judge: threads spin for some milliseconds after a step, and CPU time is counted in hundredths of
a second."""
LONG_S = 1.0
"""From this total on, many short waits show as much as a long one."""


class Parked:
    """The waits of one arm between its phases: how long they were, and how much CPU time its processes used in them."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._since_s = self._cpu_s = 0.0
        self._waited_s = self._used_s = 0.0

    def begin(self, pid: int) -> None:
        """The arm waits from now on."""
        self._pid, self._since_s, self._cpu_s = pid, time.perf_counter(), cpu_s(pid)

    def cores(self) -> float:
        """How many cores the arm has kept busy, in this wait or in all of them; 0 for waits too short to tell."""
        assert self._pid is not None
        waited_s, used_s = time.perf_counter() - self._since_s, cpu_s(self._pid) - self._cpu_s
        self._waited_s, self._used_s = self._waited_s + waited_s, self._used_s + used_s
        now = used_s / waited_s if waited_s > LEAST_S else 0.0
        # Each wait by itself may be too short to show anything.
        in_all = self._used_s / self._waited_s if self._waited_s > LONG_S else 0.0
        return max(now, in_all)


def cpu_s(pid: int) -> float:
    """CPU time so far of a process and all its descendants, in seconds."""
    spent_s = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent_s += times.user + times.system
    return spent_s
