"""Times a step in the current process: for tests, whose step exists only there and cannot be forked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.setup import baseline
from bench.workload import Workload
from harness.timing.clock import clock_for
from harness.timing.trainer import Trainer
from harness.timing.turns import is_steady

WARMUP_S = 5.0
"""The longest warm-up, in seconds and (WARMUP_STEPS) in steps."""
WARMUP_STEPS = 200

LEAST_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of each timed step, of the first step, and of the warm-up steps; whether the warm-up ended steady."""

    step_times_s: tuple[float, ...]
    first_step_s: float
    warmup_step_times_s: tuple[float, ...]
    steady: bool
    device: str


def time_steps(what: Callable[[], object] | Workload, *, device: str, seconds: float) -> Timing:
    """Warm up until the step times no longer change, then time steps for so many seconds.

    Raises ValueError if `what` is neither a function nor a Workload, and if the device is not there.
    """
    if seconds <= 0:
        raise ValueError(f"seconds {seconds} is not positive: give a time above 0")
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available: torch sees no GPU here; use device='cpu'")
    take = _taker(what, where)
    first_s = take(1)[0]
    warmup_s: list[float] = []
    begun = time.perf_counter()
    while not is_steady(warmup_s):
        if time.perf_counter() - begun > WARMUP_S or len(warmup_s) >= WARMUP_STEPS:
            break
        warmup_s += take(1)
    times_s: list[float] = []
    begun = time.perf_counter()
    while len(times_s) < LEAST_STEPS or time.perf_counter() - begun < seconds:
        times_s += take(1)
    return Timing(
        step_times_s=tuple(times_s),
        first_step_s=first_s,
        warmup_step_times_s=tuple(warmup_s),
        steady=is_steady(warmup_s),
        device=device,
    )


def _taker(what: Callable[[], object] | Workload, device: torch.device) -> Callable[[int], list[float]]:
    """A function from a number of steps to their times in seconds."""
    if isinstance(what, Workload):
        torch.manual_seed(0)
        trainer = Trainer(baseline(what, device), seed=0)
        return lambda count: list(trainer.steps(count)["step_times_s"])
    if not callable(what):
        raise ValueError(f"{what!r} is neither a function that takes a step nor a Workload: give one of them")
    step = what
    clock = clock_for(device)

    def take(count: int) -> list[float]:
        clock.start()
        for _ in range(count):
            step()
            clock.mark()
        return clock.stop().step_times_s

    return take
