"""TrainingSetup: all that one training step needs, as techniques pass it on. The only type that holds torch objects."""

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
    """This technique cannot run on this model or device. The message tells the user why."""


Feed = Callable[[Iterator[Batch]], Iterator[Batch]]
Order = Iterable[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """What one rank trains with. A technique takes a setup and returns another, made with `dataclasses.replace`.

    `optimizer` is called once, after every technique has been applied, with the parameters that require gradients; what
    is to happen at every update goes into a hook of the optimizer that it returns.
    `autocast` is entered around forward and loss. `accumulate` is the number of micro-batches per update. `no_sync` is
    entered around every micro-batch but the last, because ranks exchange gradients once per update.
    `targets` returns how many of the things to be predicted in a part of a batch are trained on, as a scalar by which
    parts are weighted. None: equal parts have equally many. `counted` is a loss that returns that count itself, after
    each call.
    `gradients` computes the gradients of one update on the rank's batch and returns the mean loss, detached. None:
    forward and backward of each micro-batch.
    `loader` are options of the DataLoader. `order` makes the index lists of this rank's batches from their number of
    samples and a seed; None: shuffled. `feed` wraps the endless batches, which are on the device by then.
    `find_largest_batch` asks the harness to enlarge the batch until it no longer fits.
    `compute` names the number format of the large matrix products, which decides the peak for MFU.
    `patience` ends a training to a loss after this many evaluations in a row without a lower one.
    `replicas` is the number of equal shares of the global batch, and `replica` the index of this rank's share: ranks
    that hold parts of one model see the same share.
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
    """Plain training as in a first script, in the number format that the model comes in: with the workload's optimizer,
    or else with torch.optim.AdamW at its defaults and the workload's learning rate."""
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
    """The number format of most of a model's weights, which is the one that it multiplies in; float32 if it has
    none."""
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
    """The setup with an optimizer that calls `before` and `after`, passing itself, around every update."""
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
    """A step hook for torch.optim. It returns nothing, because torch would take that for new arguments of the step."""

    def hook(optimizer: Optimizer, *_: object) -> None:
        call(optimizer)

    return hook


def split(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into `parts` equal micro-batches along the first dimension. Raises ValueError if it does not
    divide."""
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
