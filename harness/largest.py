"""The largest batch that fits, found by trying."""

from __future__ import annotations

import gc
from dataclasses import replace

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
    fitting = setup
    while True:
        candidate = _sized(fitting, 2 * fitting.workload.batch)
        if candidate.workload.batch > samples or not _has_room(fitting, seed) or not _fits(candidate, seed):
            return fitting
        fitting = candidate


def _sized(setup: TrainingSetup, batch: int) -> TrainingSetup:
    return replace(setup, workload=replace(setup.workload, batch=batch))


def _has_room(setup: TrainingSetup, seed: int) -> bool:
    """Whether a step of twice this batch may be tried, by what a step of this one takes."""
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    step_s = _last_step_s(setup, seed)
    grown_bytes = process.memory_info().rss - before_bytes
    is_short = 2 * step_s <= LONGEST_STEP_S
    return is_short and (setup.device.type != "cpu" or 2 * grown_bytes < HOST_SHARE * psutil.virtual_memory().available)


def _fits(setup: TrainingSetup, seed: int) -> bool:
    try:
        _last_step_s(setup, seed)
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
        if setup.device.type != "cpu":
            torch.accelerator.empty_cache()
    return True


def _last_step_s(setup: TrainingSetup, seed: int) -> float:
    """Seconds of the second of two steps, taken at a learning rate of 0, so that the weights stay what they are."""
    trainer = Trainer(setup, seed)
    for group in trainer.optimizer.param_groups if trainer.optimizer else ():
        group["lr"] = 0.0
    last_s: float = trainer.steps(2)["step_times_s"][-1]
    return last_s
