"""The random number generators that a model or its data may draw from: Python's, NumPy's and torch's.

Others, such as a library's own or the operating system's, are out of reach: a baseline that draws from them does not
repeat itself in a replay.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed all generators: from here on, processes with the same seed draw the same numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def states() -> tuple[Any, ...]:
    """The states of the generators, for comparison: every draw changes one of them. For GPUs, only the current device
    is included."""
    name, keys, position, *rest = np.random.get_state(legacy=True)
    device = torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_initialized() else b""
    numpy = (name, np.asarray(keys).tobytes(), position, *rest)
    return random.getstate(), numpy, torch.get_rng_state().numpy().tobytes(), device


@contextlib.contextmanager
def own_draws(seed: int) -> Iterator[None]:
    """Within the context, draws come from this seed; afterwards the generators are as before. Those of a GPU are left
    alone."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


class SeededSamples:
    """Map-style dataset of (index, sample): each sample of `samples`, drawn from a seed of its own."""

    def __init__(self, samples: Any, seed: int) -> None:
        self._samples, self._seed = samples, seed

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        with own_draws(_joint(self._seed, index)):
            return index, self._samples[index]


def seeded_stream(samples: Iterable[Any], seed: int) -> Iterator[tuple[int, Any]]:
    """The samples of a stream with their numbers, each drawn from a seed of its own."""
    with own_draws(seed):
        stream = iter(samples)
    for index in itertools.count():
        with own_draws(_joint(seed, index)):
            try:
                sample = next(stream)
            except StopIteration:
                return
        yield index, sample


class SeededCollate:
    """Collates samples of SeededSamples. What is drawn in doing so, such as masks, depends only on the samples."""

    def __init__(self, collate: Callable[[list[Any]], Any], seed: int) -> None:
        self._collate, self._seed = collate, seed

    def __call__(self, found: list[tuple[int, Any]]) -> Any:
        with own_draws(_joint(self._seed, *(index for index, _ in found))):
            return self._collate([sample for _, sample in found])


def _joint(*numbers: int) -> int:
    return hash(numbers) & (2**63 - 1)
