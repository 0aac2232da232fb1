"""TrainingSetup: all that one training step needs, as techniques hand it on. The one type that holds torch objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from bench.workload import Batch, Workload


class Unsupported(Exception):
    """This technique cannot run on this model or device; the message says why, for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """What one rank trains with. A technique takes one and returns another, with `dataclasses.replace`.

    `optimizer` is called once, after every technique has been applied, on the parameters that require gradients.
    `autocast` is entered around forward and loss. `accumulate` is the number of micro-batches of one update.
    `compute` names the number format of the large matrix products, for the peak that MFU is measured against.
    """

    workload: Workload
    device: torch.device
    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    scaler: torch.amp.GradScaler | None = None
    accumulate: int = 1
    compute: str = "float32"
    rank: int = 0
    world_size: int = 1


def baseline(workload: Workload, device: torch.device, *, rank: int = 0, world_size: int = 1) -> TrainingSetup:
    """Plain float32 training as a first script would have it: torch.optim.AdamW with its defaults."""
    with device:
        model = workload.model()
    return TrainingSetup(
        workload=workload,
        device=device,
        model=model.to(device).train(),
        loss=workload.loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=workload.learning_rate),
        rank=rank,
        world_size=world_size,
    )


def split(batch: Batch, parts: int) -> list[Batch]:
    """`parts` equal micro-batches along the first dimension. Raises ValueError if it does not divide."""
    if parts == 1:
        return [batch]
    sizes: set[int] = set()
    tree_map_only(Tensor, lambda tensor: sizes.add(len(tensor)), batch)
    uneven = [size for size in sizes if size % parts]
    if uneven:
        raise ValueError(f"batch {uneven[0]} does not divide into {parts} micro-batches: give a multiple of {parts}")
    return [
        tree_map_only(Tensor, lambda tensor, part=part: tensor.chunk(parts)[part], batch)  # type: ignore[misc]
        for part in range(parts)
    ]
