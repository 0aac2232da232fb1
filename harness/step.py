"""The one training step, and the data that feeds it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from bench.samples import ShuffledBatches
from bench.setup import TrainingSetup, split
from bench.workload import Batch
from harness.load import Counted, Load, load
from harness.seeds import SeededSamples


class Batches:
    """This rank's share of every global batch, endless, on the device, in an order that the seed alone decides."""

    def __init__(self, setup: TrainingSetup, seed: int, *, each_sample_seeded: bool = False) -> None:
        """`each_sample_seeded`: what a sample draws depends on its index alone, whoever asks for it and in what order.
        That takes too long for a life that is timed."""
        samples = setup.workload.data()
        order = Counted(setup.order(len(samples), seed) if setup.order else shuffled(setup, len(samples), seed))
        # The loader draws a seed for workers; a generator of its own keeps the arm's random state as it was.
        loader: DataLoader[Any] = DataLoader(
            SeededSamples(samples, seed) if each_sample_seeded else samples,  # type: ignore[arg-type]
            batch_sampler=order,
            generator=torch.Generator().manual_seed(seed),
            **setup.loader,
        )
        self._loads: deque[Load] = deque()
        self._copied = Copied()
        # A generator that knew this object would make a cycle of references, which is not freed in order: workers of
        # the loader would be waited for, five seconds each, as they do not hear that they are to end.
        self._fed = iter(setup.feed(_on_device(loader, order.sizes, setup, self._loads, self._copied)))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.next_timed()[0]

    def next_timed(self) -> tuple[Batch, Taking]:
        """The next batch, what it holds, and what it took this thread to have it."""
        asked_ns, copied_s = time.perf_counter_ns(), self._copied.s
        batch = next(self._fed)
        took_s, copy_s = (time.perf_counter_ns() - asked_ns) * 1e-9, self._copied.s - copied_s
        return batch, Taking(load=self._loads.popleft(), wait_s=took_s - copy_s, copy_s=copy_s)


class Copied(threading.local):
    """Seconds that copies to the device have taken so far, in the thread that asks.

    A feed may draw batches in a thread of its own: what it copies there keeps no one waiting but itself.
    """

    s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """How the training thread came by a batch: how long it waited for data, and how long it copied to the device.

    Copied from pageable memory, a batch is copied once the device is through with the step before: the time of the copy
    is then mostly that of the step, and says nothing about the data.
    """

    load: Load
    wait_s: float
    copy_s: float


def _on_device(
    loader: Iterable[Batch], sizes: deque[int], setup: TrainingSetup, loads: deque[Load], copied: Copied
) -> Iterator[Batch]:
    """The batches, of so many samples, on the device; what each holds is put to `loads`, and what the copy took is
    added to `copied`."""
    # Only from pinned memory can a copy go on while the host does.
    pinned = bool(setup.loader.get("pin_memory"))
    for batch in loader:
        loads.append(load(batch, sizes.popleft(), setup.workload.tokens_per_sample))
        begun_ns = time.perf_counter_ns()
        there = _copied(batch, setup.device, pinned)
        copied.s += (time.perf_counter_ns() - begun_ns) * 1e-9
        yield there


def _copied(batch: Batch, device: torch.device, pinned: bool) -> Batch:
    if isinstance(batch, dict) and all(isinstance(item, Tensor) for item in batch.values()):
        return {name: item.to(device, non_blocking=pinned) for name, item in batch.items()}
    return tree_map_only(Tensor, lambda item: item.to(device, non_blocking=pinned), batch)


def shuffled(setup: TrainingSetup, samples: int, seed: int) -> ShuffledBatches:
    """The baseline's order of this rank's samples."""
    return ShuffledBatches(
        samples=samples, batch=setup.workload.batch, seed=seed, rank=setup.replica, world_size=setup.replicas
    )


def train_step(setup: TrainingSetup, optimizer: Optimizer, batch: Batch) -> Tensor:
    """One optimizer update on one batch. Returns the mean loss over the batch, detached, still on the device."""
    loss = (setup.gradients or accumulate)(setup, batch)
    if setup.scaler is None:
        optimizer.step()
    else:
        setup.scaler.step(optimizer)
        setup.scaler.update()
    optimizer.zero_grad()
    return loss


def accumulate(setup: TrainingSetup, batch: Batch) -> Tensor:
    """Forward and backward of each micro-batch; ranks exchange gradients with the last."""
    micro_batches = split(batch, setup.accumulate)
    weights = _weights(setup, micro_batches)
    losses = []
    for index, micro_batch in enumerate(micro_batches):
        is_last = index == len(micro_batches) - 1
        with contextlib.nullcontext() if is_last else setup.no_sync():
            losses.append(_backward(setup, micro_batch, weights[index]))
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _weights(setup: TrainingSetup, micro_batches: Sequence[Batch]) -> Sequence[float | Tensor]:
    """By what the mean loss of each micro-batch counts for that of the update: by how much is trained in it.

    Ranks average their gradients, each of which stands for an equal share: so does what they count for on the mean.
    """
    equal = 1 / len(micro_batches)
    if setup.targets is None or setup.accumulate * setup.replicas == 1:
        return [equal] * len(micro_batches)
    targets = torch.stack([setup.targets(item) for item in micro_batches]).float()
    mean = targets.sum()
    if setup.replicas > 1:
        torch.distributed.all_reduce(mean)
        # Ranks that hold parts of one model count the same share.
        mean = mean / setup.world_size
    return list(targets / mean)


def _backward(setup: TrainingSetup, batch: Batch, weight: float | Tensor) -> Tensor:
    """Forward and backward of a part of a batch. Returns what its loss counts for, detached."""
    with setup.autocast():
        loss = setup.loss(setup.model, batch)
        if isinstance(weight, Tensor) or weight != 1.0:
            loss = loss * weight
    (loss if setup.scaler is None else setup.scaler.scale(loss)).backward()
    return loss.detach()


@torch.inference_mode()
def infer_step(setup: TrainingSetup, batch: Batch) -> Tensor:
    """One forward pass over one batch, without gradients. Returns the mean loss, still on the device."""
    with setup.autocast():
        return setup.loss(setup.model, batch)
