"""The slow-down that a calibration injects is as large as it claims."""

from __future__ import annotations

import time

import pytest
import torch

from bench.corpus import Corpus
from bench.resolve import resolve
from bench.setup import baseline
from bench.spec import WorkloadSpec
from harness.timing.brake import HostBrake, brake_for
from harness.timing.trainer import Trainer


def test_a_step_is_held_for_the_share_of_its_own_work() -> None:
    brake = HostBrake(0.05)
    assert brake.held_share == 0.0
    for _ in range(50):
        # The step began five milliseconds ago.
        brake.hold(time.perf_counter_ns() - 5_000_000)
    # It may be held longer, if the core is taken away, but never shorter.
    assert 0.05 <= brake.held_share < 1


def test_the_trainer_holds_every_step_and_trains_as_without(corpus: Corpus, one_thread: None) -> None:
    workload = resolve(WorkloadSpec(model="gpt2/nano", batch=4, sequence=32), corpus)
    losses = []
    for slowdown in (0.0, 0.5):
        torch.manual_seed(0)
        trainer = Trainer(baseline(workload, torch.device("cpu")), seed=0, slowdown=slowdown)
        losses.append(trainer.steps(3)["losses"])
        assert (trainer.brake is None) == (slowdown == 0.0)
    assert losses[0] == losses[1]
    assert trainer.brake is not None and trainer.brake.held_share >= 0.5


def test_a_slow_down_is_above_nothing() -> None:
    for share in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="slow-down"):
            brake_for(share, torch.device("cpu"))
