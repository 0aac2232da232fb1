"""TrainingSetup: all that one training step needs, as techniques hand it on. The one type that holds torch objects."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from bench.spec import Phase
from bench.workload import Batch, LossModule, MeanLoss, Workload, counting_labels, output_loss, own_loss


class Unsupported(Exception):
    """This technique cannot run on this model or device; the message says why, for the user."""


Feed = Callable[[Iterator[Batch]], Iterator[Batch]]
Order = Iterable[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """What one rank trains with. A technique takes one and returns another, with `dataclasses.replace`.

    `optimizer` is called once, after every technique has been applied, on the parameters that require gradients; what
    is to happen at every update goes into a hook of the optimizer that it returns.
    `autocast` is entered around forward and loss. `accumulate` is the number of micro-batches of one update.
    `no_sync` is entered around every micro-batch but the last: ranks exchange gradients once an update.
    `targets` tells on how many of what it is to predict a part of a batch is trained, a scalar, so that parts count by
    it; None: equal parts have equally many. `counted` is the loss that tells so itself, once it was called.
    `gradients` computes the gradients of one update on the rank's batch and returns the mean loss, detached; None:
    forward and backward of each micro-batch.
    `loader` are options of the DataLoader; `order` makes the index lists of this rank's batches from their number of
    samples and a seed, None: shuffled; `feed` wraps the endless batches, which are on the device by then.
    `find_largest_batch` asks the harness to enlarge the batch until it no longer fits.
    `compute` names the number format of the large matrix products, for the peak that MFU is measured against.
    `patience` ends a training to a loss once so many evaluations in a row have found no lower one.
    `replicas` is the number of equal shares of the global batch and `replica` this rank's: ranks that hold parts of
    one model see the same share.
    """

    workload: Workload
    device: torch.device
    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    scaler: torch.amp.GradScaler | None = None
    accumulate: int = 1
    no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    targets: Callable[[Batch], Tensor] | None = None
    counted: MeanLoss | None = None
    gradients: Callable[[TrainingSetup, Batch], Tensor] | None = None
    loader: Mapping[str, Any] = field(default_factory=dict)
    order: Callable[[int, int], Order] | None = None
    feed: Feed = iter
    find_largest_batch: bool = False
    compute: str = "float32"
    patience: int | None = None
    rank: int = 0
    world_size: int = 1
    replica: int = 0
    replicas: int = 1

    @property
    def share(self) -> int:
        """Samples of one update that this rank sees."""
        return self.workload.batch // self.replicas


def baseline(
    workload: Workload, device: torch.device, *, rank: int = 0, world_size: int = 1, replicas: int = 1
) -> TrainingSetup:
    """Plain training as a first script would have it, in the number format that the model comes in: with the workload's
    optimizer, or else torch.optim.AdamW with its defaults."""
    with device:
        model = workload.model()
    if not workload.calls_model:
        model = LossModule(model, workload.loss)
    counted = None if workload.loss is output_loss else MeanLoss(workload.loss if workload.calls_model else own_loss)
    if workload.phase is Phase.INFER:
        model.eval().requires_grad_(False)
    else:
        model.train()
    compute = _number_format(model)
    return TrainingSetup(
        workload=workload,
        device=device,
        model=model.to(device),
        loss=counted or output_loss,
        targets=counting_labels(model) if workload.text is None and counted is None else None,
        counted=counted,
        compute=compute,
        optimizer=workload.optimizer or functools.partial(torch.optim.AdamW, lr=workload.learning_rate),
        accumulate=workload.accumulate,
        rank=rank,
        world_size=world_size,
        replica=rank * replicas // world_size,
        replicas=replicas,
    )


def _number_format(model: nn.Module) -> str:
    """That of most of a model's weights, which is the one that it multiplies in; float32 where none has any."""
    sizes: Counter[torch.dtype] = Counter()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] += parameter.numel()
    return str(sizes.most_common(1)[0][0]).removeprefix("torch.") if sizes else "float32"


def with_hooks(
    setup: TrainingSetup,
    *,
    before: Callable[[Optimizer], object] | None = None,
    after: Callable[[Optimizer], object] | None = None,
) -> TrainingSetup:
    """The setup whose optimizer calls `before` and `after` around every update with itself."""
    make = setup.optimizer

    def hooked(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        if before is not None:
            optimizer.register_step_pre_hook(_as_hook(before))
        if after is not None:
            optimizer.register_step_post_hook(_as_hook(after))
        return optimizer

    return replace(setup, optimizer=hooked)


def _as_hook(call: Callable[[Optimizer], object]) -> Callable[..., None]:
    """A step hook of torch.optim; what it returns would be taken for new arguments of the step."""

    def hook(optimizer: Optimizer, *_: object) -> None:
        call(optimizer)

    return hook


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
