"""The largest batch that fits, found by trying."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace

import psutil
import torch

from bench.setup import TrainingSetup
from harness.trainer import Trainer

LONGEST_STEP_S = 1.0
"""A batch whose step would take longer is not tried: on a CPU memory lasts far beyond what anyone would wait for."""

HOST_SHARE = 0.5
"""Of the host's free memory an arm on a CPU may take this share: others are parked beside it, and no error warns."""


def with_largest_batch(setup: TrainingSetup, seed: int) -> TrainingSetup:
    """The setup with its batch doubled as often as memory, the longest step and the number of samples allow."""
    samples = len(setup.workload.data())
    taken = _try(setup, seed)
    while 2 * setup.workload.batch <= samples and _may_double(taken, setup.device):
        candidate = with_batch(setup, 2 * setup.workload.batch)
        try:
            taken = _try(candidate, seed)
        except torch.OutOfMemoryError:
            break
        finally:
            gc.collect()
            if setup.device.type != "cpu":
                torch.accelerator.empty_cache()
        setup = candidate
    return setup


def with_batch(setup: TrainingSetup, batch: int) -> TrainingSetup:
    """The setup with another global batch."""
    return replace(setup, workload=replace(setup.workload, batch=batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What one step of a batch took, and by how much the process grew over it."""

    step_s: float
    grown_bytes: int


def _try(setup: TrainingSetup, seed: int) -> _Taken:
    """The second of two steps, taken at a learning rate of 0, so that the weights stay what they are."""
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    trainer = Trainer(setup, seed)
    for group in trainer.optimizer.param_groups if trainer.optimizer else ():
        group["lr"] = 0.0
    step_s = trainer.steps(2)["step_times_s"][-1]
    return _Taken(step_s=step_s, grown_bytes=process.memory_info().rss - before_bytes)


def _may_double(taken: _Taken, device: torch.device) -> bool:
    """Whether a batch of twice the size may be tried. A GPU says itself when its memory is full."""
    is_short = 2 * taken.step_s <= LONGEST_STEP_S
    return is_short and (device.type != "cpu" or 2 * taken.grown_bytes < HOST_SHARE * psutil.virtual_memory().available)
