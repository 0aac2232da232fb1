"""The one training step, and the data that feeds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from bench.corpus import ShuffledBatches
from bench.setup import TrainingSetup, split
from bench.workload import Batch


def batches(setup: TrainingSetup, seed: int) -> Iterator[Batch]:
    """This rank's share of every global batch, endless, on the device, in an order that the seed alone decides."""
    samples = setup.workload.data()
    order = ShuffledBatches(
        samples=len(samples),
        batch=setup.workload.batch,
        seed=seed,
        rank=setup.rank,
        world_size=setup.world_size,
    )
    # The loader draws a seed for workers; a generator of its own keeps the arm's random state as it was.
    loader: DataLoader[Any] = DataLoader(samples, batch_sampler=order, generator=torch.Generator())  # type: ignore[arg-type]
    for batch in loader:
        yield tree_map_only(Tensor, lambda tensor: tensor.to(setup.device), batch)


def train_step(setup: TrainingSetup, optimizer: Optimizer, batch: Batch) -> Tensor:
    """One optimizer update on one batch. Returns the mean loss over the batch, detached, still on the device."""
    losses = []
    micro_batches = split(batch, setup.accumulate)
    for index, micro_batch in enumerate(micro_batches):
        with _gradient_sync(setup, last=index == len(micro_batches) - 1):
            with setup.autocast():
                loss = setup.loss(setup.model, micro_batch) / len(micro_batches)
            (loss if setup.scaler is None else setup.scaler.scale(loss)).backward()
        losses.append(loss.detach())
    if setup.scaler is None:
        optimizer.step()
    else:
        setup.scaler.step(optimizer)
        setup.scaler.update()
    optimizer.zero_grad()
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _gradient_sync(setup: TrainingSetup, *, last: bool) -> AbstractContextManager[Any]:
    """Ranks exchange gradients once an update, with the last micro-batch."""
    no_sync = getattr(setup.model, "no_sync", None)
    return contextlib.nullcontext() if last or no_sync is None else no_sync()
