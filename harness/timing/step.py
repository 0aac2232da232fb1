"""The one training step."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from bench.setup import TrainingSetup, split
from bench.workload import Batch


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
    """Forward and backward of each micro-batch; ranks exchange gradients with the last one."""
    micro_batches = split(batch, setup.accumulate)
    weights = _weights(setup, micro_batches)
    losses: list[Tensor] = []
    counts: list[Tensor] = []
    for index, micro_batch in enumerate(micro_batches):
        is_last = index == len(micro_batches) - 1
        with contextlib.nullcontext() if is_last else setup.no_sync():
            losses.append(_backward(setup, micro_batch, weights[index], counts))
    loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    return _over_what_was_counted(setup, loss, counts) if counts else loss


def _weights(setup: TrainingSetup, micro_batches: Sequence[Batch]) -> Sequence[float | Tensor]:
    """The weight of each micro-batch's mean loss in that of the update: its share of the targets, or else an equal
    share."""
    equal = 1 / len(micro_batches)
    if setup.targets is None or _is_whole(setup):
        return [equal] * len(micro_batches)
    targets = torch.stack([setup.targets(item) for item in micro_batches]).float()
    return list(targets / _mean_over_ranks(setup, targets.sum()))


def _is_whole(setup: TrainingSetup) -> bool:
    return setup.accumulate * setup.replicas == 1


def _mean_over_ranks(setup: TrainingSetup, counted: Tensor) -> Tensor:
    """The mean of a count over the ranks: gradients are averaged over ranks, so counts are too. Ranks that hold parts
    of one model count the same share."""
    if setup.replicas > 1:
        torch.distributed.all_reduce(counted)
        counted = counted / setup.world_size
    return counted


def _backward(setup: TrainingSetup, batch: Batch, weight: float | Tensor, counts: list[Tensor]) -> Tensor:
    """Forward and backward of a part of a batch. Returns its weighted loss, detached.

    If the loss reports the count that it is the mean over, and the batch has other parts, that count becomes its weight
    and is added to `counts`. Its unit is the count of the first part, because the total is not known yet.
    """
    with setup.autocast():
        loss = setup.loss(setup.model, batch)
        count = None if setup.counted is None or _is_whole(setup) else setup.counted.count
        if count is not None:
            # The unit must be the same on all ranks.
            unit = counts[0] if counts else _mean_over_ranks(setup, count.clone())
            counts += [count] if counts else [unit, count]
            weight = weight * count / unit
        if isinstance(weight, Tensor) or weight != 1.0:
            loss = loss * weight
    (loss if setup.scaler is None else setup.scaler.scale(loss)).backward()
    return loss.detach()


def _over_what_was_counted(setup: TrainingSetup, loss: Tensor, counts: Sequence[Tensor]) -> Tensor:
    """Rescale the loss, and the gradients in place, from the unit of the first part to the total count of all parts."""
    unit, *own = counts
    if setup.accumulate == 1:
        return loss  # The unit is already the mean over the ranks.
    factor = setup.accumulate * unit / _mean_over_ranks(setup, torch.stack(own).sum())
    for parameter in setup.model.parameters():
        if parameter.grad is not None:
            gradient = parameter.grad
            (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(factor)
    return loss * factor


@torch.inference_mode()
def infer_step(setup: TrainingSetup, batch: Batch) -> Tensor:
    """One forward pass over one batch, without gradients. Returns the mean loss, still on the device."""
    with setup.autocast():
        return setup.loss(setup.model, batch)
