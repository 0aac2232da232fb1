"""Every generator is seeded, each sample has its own draws, and randomness that no seed reaches is reported."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import seeds
from bench.setup import baseline
from bench.workload import Workload
from harness.evidence.replay import Observer
from harness.timing.feed import Batches
from harness.timing.trainer import Trainer
from tests.training import apply


class Noisy(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Draws from all three generators."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        drawn = [random.random(), float(np.random.normal()), float(torch.randn(()))]
        return torch.tensor([index, *drawn]), index % 3


def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def workload(net: type[nn.Module] | None = None) -> Workload:
    return Workload(model=net or (lambda: nn.Linear(4, 3)), data=Noisy, loss=loss, batch=8)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.normal()), float(torch.randn(()))


def test_all_three_are_seeded() -> None:
    seeds.seed_all(3)
    first = draws()
    draws()
    seeds.seed_all(3)
    assert draws() == first
    seeds.seed_all(4)
    assert all(new != old for new, old in zip(draws(), first, strict=True))


def test_own_draws_leave_the_generators_as_they_were() -> None:
    seeds.seed_all(3)
    first = draws()
    seeds.seed_all(3)
    with seeds.own_draws(11):
        inside = draws()
    assert draws() == first
    with seeds.own_draws(11):
        assert draws() == inside


@pytest.mark.parametrize("index", range(3))
def test_a_draw_from_any_is_seen(index: int) -> None:
    before = seeds.states()
    assert seeds.states() == before
    draw: list[Callable[[], object]] = [random.random, np.random.normal, lambda: torch.randn(())]
    draw[index]()
    assert seeds.states() != before


@pytest.mark.parametrize("name", ["workers_2", "prefetch_thread"])
def test_a_sample_is_the_same_whoever_draws_it(name: str) -> None:
    setups = [baseline(workload(), torch.device("cpu")) for _ in range(2)]
    # One after the other: a thread that draws at the same time would use the same generators.
    plain = Batches(setups[0], 0, each_sample_seeded=True)
    expected = [next(plain)[0] for _ in range(3)]
    other = Batches(apply(setups[1], name), 0, each_sample_seeded=True)
    assert all(torch.equal(next(other)[0], batch) for batch in expected)


def test_workers_draw_what_workers_drew_before() -> None:
    made = []
    for _ in range(2):
        batches = Batches(apply(baseline(workload(), torch.device("cpu")), "workers_2"), 5)
        made.append([next(batches)[0] for _ in range(3)])
    assert all(torch.equal(new, old) for new, old in zip(*made, strict=True))


class Masks(nn.Linear):
    """Masks its input with NumPy, as SpecAugment does."""

    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs * float(np.random.random() < 0.5))


class Clocked(nn.Linear):
    """Draws from a source that no seed reaches."""

    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs * (time.perf_counter_ns() % 1000 / 1000))


@pytest.mark.parametrize(("net", "expected"), [(None, False), (Masks, True), (Clocked, False)])
def test_a_forward_pass_that_draws_is_told(net: type[nn.Module] | None, expected: bool) -> None:
    trainer = Trainer(baseline(workload(net), torch.device("cpu")), 0, each_sample_seeded=True)
    observer = Observer(trainer.setup, trainer.optimizer, watch_draws=True)
    trainer.steps(2)
    assert observer.facts(2)["draws"] is expected
