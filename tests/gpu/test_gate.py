"""What the gate reads from a GPU, and the slow-down that it injects there."""

from __future__ import annotations

import pytest
import torch

from bench.corpus import Corpus
from bench.resolve import resolve
from bench.setup import baseline
from bench.spec import WorkloadSpec
from harness.preparation.machine import probe_device
from harness.telemetry import conditions
from harness.telemetry.gpus import Gpus
from harness.timing.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine")


def test_the_counters_of_a_gpu_are_read_and_nothing_disturbs_an_idle_one() -> None:
    gpus = Gpus("cuda", probe_device("cuda")["gpu_uuids"]).first(1)
    assert gpus.reason is None
    torch.ones(1, device="cuda")
    before, after = conditions.read(gpus), conditions.read(gpus)
    unseen = conditions.unseen(before, after, "cuda")
    assert before.gpu_throttled_s is not None or any(item.startswith("GPU heat (") for item in unseen)
    assert after.gpu_processes is not None or any(item.startswith("GPU processes (") for item in unseen)


def test_a_step_is_held_on_the_device(corpus: Corpus) -> None:
    workload = resolve(WorkloadSpec(model="gpt2/mini", batch=8, sequence=64), corpus)
    trainer = Trainer(baseline(workload, torch.device("cuda")), seed=0, slowdown=0.5)
    # The first blocks show the step's own time; the others are slowed by half of it.
    alone_s = trainer.steps(20)["step_times_s"]
    held_s = trainer.steps(20)["step_times_s"]
    assert trainer.brake is not None
    assert 0.3 < trainer.brake.held_share < 0.8
    assert sorted(held_s)[10] > sorted(alone_s)[10]
