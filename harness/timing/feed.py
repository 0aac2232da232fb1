"""The data that feeds training: this rank's share of every global batch, on the device."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, IterableDataset, default_collate

from bench.samples import ShuffledBatches
from bench.seeds import SeededCollate, SeededSamples, seeded_stream
from bench.setup import Order, TrainingSetup, split
from bench.workload import Batch
from harness.evidence.load import Counted, Load, load


class Batches:
    """This rank's share of every global batch, endless, on the device, in an order that only the seed determines."""

    def __init__(self, setup: TrainingSetup, seed: int, *, each_sample_seeded: bool = False, begin: int = 0) -> None:
        """`each_sample_seeded`: random draws for a sample depend only on its index, whoever asks for it and in what
        order. That is too slow for a life that is timed. The first batch is number `begin`."""
        make = _of_a_stream if setup.workload.is_stream else _of_a_map
        loader, sizes = make(setup, seed, each_sample_seeded, begin)
        self._loads: deque[Load] = deque()
        self._copied = Copied()
        # A generator that referred to this object would make a reference cycle, which is not freed in order: the loader
        # would wait five seconds for each worker, because workers do not hear that they should end.
        self._fed = iter(setup.feed(_on_device(loader, sizes, setup, self._loads, self._copied)))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.next_timed()[0]

    def next_timed(self) -> tuple[Batch, Taking]:
        """The next batch, what it holds, and how long this thread took to get it."""
        asked_ns, copied_s = time.perf_counter_ns(), self._copied.s
        batch = next(self._fed)
        took_s, copy_s = (time.perf_counter_ns() - asked_ns) * 1e-9, self._copied.s - copied_s
        return batch, Taking(load=self._loads.popleft(), wait_s=took_s - copy_s, copy_s=copy_s)


class Copied(threading.local):
    """Seconds that copies to the device have taken so far, in the calling thread.

    A feed may draw batches in a thread of its own: copies there hold up only that thread.
    """

    s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """How the training thread got a batch: how long it waited for data, and how long it copied to the device.

    A copy from pageable memory only runs once the device has finished the step before: its time is then mostly that of
    the step, and says nothing about the data.
    """

    load: Load
    wait_s: float
    copy_s: float


def _of_a_map(
    setup: TrainingSetup, seed: int, each_sample_seeded: bool, begin: int
) -> tuple[Iterable[Batch], Iterator[int]]:
    """Batches of a map-style dataset, and how many samples each has."""
    samples: Any = setup.workload.data()
    if each_sample_seeded:
        samples = SeededSamples(samples, seed)
    together = each_sample_seeded and _collates_together(setup)
    order = setup.order(len(samples), seed) if setup.order else shuffled(setup, len(samples), seed, together)
    order = Counted(itertools.islice(order, begin, None) if begin else order)
    loader: DataLoader[Any] = DataLoader(
        samples, batch_sampler=order, **_options(setup, seed, each_sample_seeded, together)
    )
    return loader, itertools.repeat(setup.share) if together else order.taken()


def _of_a_stream(
    setup: TrainingSetup, seed: int, each_sample_seeded: bool, begin: int
) -> tuple[Iterable[Batch], Iterator[int]]:
    """Batches of an IterableDataset, restarted when it ends, and how many samples each has."""
    together = each_sample_seeded and _collates_together(setup)
    loader: DataLoader[Any] = DataLoader(
        _Shares(setup, seed if each_sample_seeded else None, together),
        batch_size=None,
        **_options(setup, seed, each_sample_seeded, together),
    )
    return itertools.islice(loader, begin, None) if begin else loader, itertools.repeat(setup.share)


def _collates_together(setup: TrainingSetup) -> bool:
    """Whether each rank has to make whole batches to get the share that one process would get: random draws and padding
    while a batch is made depend on all its samples."""
    return setup.replicas > 1 and setup.order is None and setup.workload.collate is not default_collate


def _options(setup: TrainingSetup, seed: int, each_sample_seeded: bool, together: bool) -> dict[str, Any]:
    options = {"collate_fn": setup.workload.collate, **setup.loader}
    if each_sample_seeded:
        options["collate_fn"] = SeededCollate(options["collate_fn"], seed)
    if together:
        options["collate_fn"] = _Share(options["collate_fn"], setup.replica, setup.replicas)
    # The loader draws a seed for its workers; with its own generator it leaves the arm's random state alone.
    return options | {"generator": torch.Generator().manual_seed(seed)}


@dataclass(frozen=True, slots=True)
class _Share:
    """Makes a whole batch and returns one replica's part of it."""

    collate: Callable[[list[Any]], Batch]
    replica: int
    replicas: int

    def __call__(self, samples: list[Any]) -> Batch:
        return split(self.collate(samples), self.replicas)[self.replica]


class _Shares(IterableDataset[list[Any]]):
    """This rank's samples of each global batch of a stream, as lists, or all of them if batches are made `together`.
    With a `seed`, each sample is drawn from its own seed and comes with its index, as in SeededSamples."""

    def __init__(self, setup: TrainingSetup, seed: int | None, together: bool) -> None:
        self._samples: Any = setup.workload.data()
        self._batch, self._seed = setup.workload.batch, seed
        own = slice(setup.replica * setup.share, (setup.replica + 1) * setup.share)
        self._share = slice(None) if together else own

    def __iter__(self) -> Iterator[list[Any]]:
        for epoch in itertools.count():
            stream = iter(self._samples) if self._seed is None else seeded_stream(self._samples, self._seed)
            taken = 0
            while len(found := list(itertools.islice(stream, self._batch))) == self._batch:
                taken += 1
                yield found[self._share]
            if not taken:
                raise ValueError(
                    f"the stream gave {len(found)} samples in epoch {epoch}, fewer than one batch of {self._batch}: "
                    "it must start again whenever it is iterated over"
                )


def _on_device(
    loader: Iterable[Batch], sizes: Iterator[int], setup: TrainingSetup, loads: deque[Load], copied: Copied
) -> Iterator[Batch]:
    """The batches, with `sizes` samples each, on the device. What each holds is appended to `loads`, and the time of
    its copy is added to `copied`."""
    # Only copies from pinned memory run while the host goes on.
    pinned = bool(setup.loader.get("pin_memory"))
    for batch in loader:
        loads.append(load(batch, next(sizes), setup.workload.tokens_per_sample))
        begun_ns = time.perf_counter_ns()
        there = _copied(batch, setup.device, pinned)
        copied.s += (time.perf_counter_ns() - begun_ns) * 1e-9
        yield there


def _copied(batch: Batch, device: torch.device, pinned: bool) -> Batch:
    if isinstance(batch, dict) and all(isinstance(item, Tensor) for item in batch.values()):
        return {name: item.to(device, non_blocking=pinned) for name, item in batch.items()}
    return tree_map_only(Tensor, lambda item: item.to(device, non_blocking=pinned), batch)


def shuffled(setup: TrainingSetup, samples: int, seed: int, together: bool = False) -> Order:
    """The baseline's order of this rank's samples, or of all if batches are made `together`: that of the workload's
    loader, or else shuffled."""
    replica, replicas = (0, 1) if together else (setup.replica, setup.replicas)
    if setup.workload.order is not None:
        return _dealt(setup.workload.order(setup.workload.batch, seed), replica, replicas)
    return ShuffledBatches(samples=samples, batch=setup.workload.batch, seed=seed, rank=replica, world_size=replicas)


def _dealt(batches: Iterable[list[int]], replica: int, replicas: int) -> Order:
    """One replica's equal share of each batch. Raises ValueError if a batch is not divisible."""
    for indices in batches:
        if len(indices) % replicas:
            raise ValueError(f"a batch of {len(indices)} samples does not divide over {replicas} ranks")
        share = len(indices) // replicas
        yield list(indices)[replica * share : (replica + 1) * share]
