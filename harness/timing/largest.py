"""The largest batch that fits, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from bench.setup import TrainingSetup
from harness.telemetry import cgroups
from harness.timing.trainer import Trainer

LONGEST_STEP_S = 1.0
"""A batch whose step would take longer is not tried: on a CPU memory lasts far beyond what anyone would wait for."""

HOST_SHARE = 0.5
"""Of the host's free memory an arm on a CPU may take this share: others are parked beside it, and no error warns."""


def largest_batch(build: Callable[[int], TrainingSetup], batch: int, seed: int) -> int:
    """The batch, doubled as often as memory, the longest step and the number of samples allow.

    `build` makes the setup anew for each size that is tried, so that nothing of a trial is left in what trains.
    """
    taken = _try(build(batch), seed)
    while 2 * batch <= taken.samples and _may_double(taken):
        try:
            taken = _try(build(2 * batch), seed)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            break
        finally:
            _release()
        batch *= 2
    _release()
    return batch


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what was lacking: CUDA's libraries and the system each say it in words of their own."""
    told = any(
        mark in str(error).lower() for mark in ("out of memory", "alloc_failed", "can't allocate memory", "bad_alloc")
    )
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What one step of a batch took, by how much the process grew over it, and how many samples there are."""

    device: torch.device
    samples: int
    step_s: float
    grown_bytes: int


def _try(setup: TrainingSetup, seed: int) -> _Taken:
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    step_s = Trainer(setup, seed).steps(2)["step_times_s"][-1]
    return _Taken(
        device=setup.device,
        samples=len(setup.workload.data()),
        step_s=step_s,
        grown_bytes=process.memory_info().rss - before_bytes,
    )


def _may_double(taken: _Taken) -> bool:
    """Whether a batch of twice the size may be tried. A GPU says itself when its memory is full."""
    is_short = 2 * taken.step_s <= LONGEST_STEP_S
    return is_short and (
        taken.device.type != "cpu" or 2 * taken.grown_bytes < HOST_SHARE * cgroups.available_memory_bytes()
    )


def _release() -> None:
    """Give back what a trial has taken, and on a GPU forget its peak."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
