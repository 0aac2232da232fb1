"""The largest batch that fits, found by trial."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import psutil
import torch

from bench.setup import TrainingSetup
from harness.telemetry import cgroups
from harness.timing.trainer import Trainer

LONGEST_STEP_S = 1.0
"""A batch whose step would take longer is not tried: on a CPU memory lasts far longer than anyone's patience."""

HOST_SHARE = 0.5
"""The share of the host's free memory that an arm on a CPU may take: others are parked there, and no error warns."""

SURE, UNSURE = 1.1, 1.1
"""Safety factors on predicted bytes. On a GPU a batch should fit if SURE times its prediction does, because the
allocator holds more than is in use; a batch whose prediction exceeds UNSURE times the free memory does not fit."""

NOTHING: Mapping[int, int] = MappingProxyType({})


def largest_batch(
    build: Callable[[int], TrainingSetup], batch: int, seed: int, foretold: Mapping[int, int] = NOTHING
) -> int:
    """The batch, doubled as often as memory, the longest step and the number of samples allow.

    `build` makes a new setup for each size that is tried, so that no trial leaves traces in what trains. With
    `foretold`, the predicted bytes by batch size, the second trial is of the largest batch that should fit, and batches
    that should not are not tried.
    """
    taken = _try(build(batch), seed)
    _release()
    room_bytes = _room_bytes(taken.device)
    ahead = _should_fit(taken, batch, foretold, room_bytes)
    if ahead > batch and (seen := _try_to_fit(build, ahead, seed)):
        taken, batch = seen, ahead
    while _may_double(taken, batch) and foretold.get(2 * batch, 0) <= UNSURE * room_bytes:
        seen = _try_to_fit(build, 2 * batch, seed)
        if seen is None:
            break
        taken, batch = seen, 2 * batch
    return batch


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether the error means lack of memory: CUDA's libraries and the system each have their own words for it."""
    told = any(
        mark in str(error).lower() for mark in ("out of memory", "alloc_failed", "can't allocate memory", "bad_alloc")
    )
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What one batch showed: the time of a step, the growth of the process, and how many samples there are."""

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


def _try_to_fit(build: Callable[[int], TrainingSetup], batch: int, seed: int) -> _Taken | None:
    """Try a batch; None if memory ran out."""
    try:
        return _try(build(batch), seed)
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        return None
    finally:
        _release()


def _should_fit(taken: _Taken, batch: int, foretold: Mapping[int, int], room_bytes: float) -> int:
    """The largest batch that should fit and have a short enough step, 0 if there is none."""
    likely = [
        size
        for size, peak_bytes in foretold.items()
        if SURE * peak_bytes <= room_bytes and size / batch * taken.step_s <= LONGEST_STEP_S and size <= taken.samples
    ]
    return max(likely, default=0)


def _room_bytes(device: torch.device) -> float:
    """Bytes that tensors may take."""
    if device.type == "cpu":
        return HOST_SHARE * cgroups.available_memory_bytes()
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return float(free_bytes)


def _may_double(taken: _Taken, batch: int) -> bool:
    """Whether a batch twice as large may be tried. A GPU reports by itself when its memory is full."""
    is_short = 2 * batch <= taken.samples and 2 * taken.step_s <= LONGEST_STEP_S
    return is_short and (taken.device.type != "cpu" or 2 * taken.grown_bytes < _room_bytes(taken.device))


def _release() -> None:
    """Free what a trial has taken, and on a GPU reset its peak."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
