"""Shared by the tests of techniques: setups built in this process, and three updates with assertions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from bench.composition import compose
from bench.corpus import Corpus
from bench.resolve import resolve
from bench.setup import TrainingSetup, baseline
from bench.spec import WorkloadSpec
from bench.workload import Workload
from harness.timing.feed import Batches
from harness.timing.step import train_step


def apply(setup: TrainingSetup, *names: str) -> TrainingSetup:
    for technique in compose(names):
        setup = technique.apply(setup)
    return setup


def build(corpus: Corpus, model: str, *names: str) -> TrainingSetup:
    """The model under a composition, on the CPU, with a fixed seed: 8 samples of 32 tokens per update."""
    torch.manual_seed(0)
    workload = resolve(WorkloadSpec(model=model, batch=8, sequence=32), corpus)
    return apply(baseline(workload, torch.device("cpu")), *names)


def own(make: Callable[[], nn.Module]) -> TrainingSetup:
    """The setup of a user's own module."""
    return baseline(Workload(model=make, data=list, batch=2), torch.device("cpu"))


def first_loss(setup: TrainingSetup) -> float:
    setup.model.eval()
    with torch.no_grad():
        return float(setup.loss(setup.model, next(Batches(setup, seed=0))))


def train_three_steps(setup: TrainingSetup) -> None:
    """Make three updates, and assert what every training must show."""
    parameters = [item for item in setup.model.parameters() if item.requires_grad]
    before = [item.detach().clone() for item in parameters]
    optimizer = setup.optimizer(parameters)
    without_gradient: set[int] = set()

    def look(*_: object) -> None:
        without_gradient.update(index for index, item in enumerate(parameters) if item.grad is None)

    optimizer.register_step_pre_hook(look)
    data = Batches(setup, seed=0)
    losses = [float(train_step(setup, optimizer, next(data))) for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses)
    assert not without_gradient
    assert all(not torch.equal(new, old) for new, old in zip(parameters, before, strict=True))
