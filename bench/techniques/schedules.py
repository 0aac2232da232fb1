"""What every update does beside the optimizer's own rule: learning rates over time, weight decay, clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR

from bench.clipping import clip
from bench.registry import Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, with_hooks
from bench.techniques._joint import as_groups, as_parameters, part_of

HORIZON = 1000
"""Updates over which a schedule runs: an arm of a minute or so passes through all of it, and then stays at its end."""

WARM_UP = 100
"""Updates until the full rate is reached: a tenth of the horizon."""

FLOOR = 0.1
"""Share of the rate that is left at the end, so that later updates still move the weights."""

LARGEST_NORM = 1.0
DECAY = 0.1

schedule = partial(technique, stage=Stage.STEP, changes={Change.SCHEDULE}, slot="schedule")


WARM_UP_AND_COSINE = f"""\
def warm_up_and_cosine(update):
    \"""The share of the learning rate that update number `update` is made with.\"""
    if update < {WARM_UP}:
        return (update + 1) / {WARM_UP}
    progress = min(1.0, (update - {WARM_UP}) / {HORIZON - WARM_UP})
    return {FLOOR} + {1 - FLOOR} * (1 + math.cos(math.pi * progress)) / 2"""

BY_DECAY = f"""\
def by_decay(model):
    \"""Weight decay on matrices, and none on biases and norms.\"""
    for has_rows, decay in ((True, {DECAY}), (False, 0.0)):
        members = [item for item in model.parameters() if (item.dim() > 1) is has_rows]
        yield {{"params": members, "weight_decay": decay}}"""


def _written(scheduler: str, *functions: str) -> Code:
    """A scheduler in a script."""
    return Code(
        imports=("import math",) if functions else (),
        functions=functions,
        optimized=(f"scheduler = {scheduler}",),
        updated=("scheduler.step()",),
    )


def _scheduled(setup: TrainingSetup, kind: Callable[[Optimizer], LRScheduler]) -> TrainingSetup:
    """The setup whose optimizer has its rates set by the scheduler after every update."""
    make = setup.optimizer

    def scheduled(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        scheduler = kind(optimizer)
        optimizer.register_step_post_hook(lambda *_: scheduler.step())
        return optimizer

    return replace(setup, optimizer=scheduled)


@technique(
    stage=Stage.STEP,
    slot="schedule",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LambdaLR.html",
    code=_written("torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1.0)"),
)
def schedule_constant(setup: TrainingSetup) -> TrainingSetup:
    """A scheduler sets the same learning rate after every update: it shows what scheduling costs by itself."""
    return _scheduled(setup, lambda optimizer: LambdaLR(optimizer, lambda update: 1.0))


@schedule(
    source="https://arxiv.org/abs/1608.03983",
    code=_written("torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_and_cosine)", WARM_UP_AND_COSINE),
)
def schedule_cosine(setup: TrainingSetup) -> TrainingSetup:
    """The learning rate rises over 100 updates, falls along a cosine to a tenth at update 1000, and stays there."""
    return _scheduled(setup, lambda optimizer: LambdaLR(optimizer, _warm_up_and_cosine))


def _warm_up_and_cosine(update: int) -> float:
    """The share of the rate that update number `update`, from 0, is made with."""
    if update < WARM_UP:
        return (update + 1) / WARM_UP
    progress = min(1.0, (update - WARM_UP) / (HORIZON - WARM_UP))
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2


@schedule(
    source="https://arxiv.org/abs/1512.03385",
    code=_written("torch.optim.lr_scheduler.MultiStepLR(optimizer, [500, 750], gamma=0.1)"),
)
def schedule_step(setup: TrainingSetup) -> TrainingSetup:
    """The learning rate falls to a tenth at update 500, and to a tenth of that at update 750."""
    milestones = (HORIZON // 2, HORIZON * 3 // 4)
    return _scheduled(setup, lambda optimizer: MultiStepLR(optimizer, milestones, gamma=0.1))


@technique(
    stage=Stage.STEP,
    changes={Change.UPDATE_RULE},
    source="https://arxiv.org/abs/1711.05101",
    code=Code(functions=(BY_DECAY,), parameters="by_decay(model)"),
)
def weight_decay(setup: TrainingSetup) -> TrainingSetup:
    """Weight decay of 0.1 on matrices and none on vectors (biases, norms), where AdamW has 0.01 on all."""
    make = setup.optimizer

    def decayed(parameters: Iterable[nn.Parameter]) -> Optimizer:
        groups = []
        for group in as_groups(parameters):
            for has_rows, decay in ((True, DECAY), (False, 0.0)):
                members = [item for item in group["params"] if (item.dim() > 1) is has_rows]
                groups.append(part_of(group, members) | {"weight_decay": decay})
        return make(as_parameters(group for group in groups if group["params"]))

    return replace(setup, optimizer=decayed)


@technique(
    stage=Stage.STEP,
    changes={Change.UPDATE_RULE},
    # These know no more than the gradients of one parameter, or of one rank's layers, when the norm is needed.
    excludes={"optimizer_in_backward", "offload_optimizer", "pipeline_gpipe", "pipeline_1f1b", "model_split"},
    source="https://arxiv.org/abs/1211.5063",
    code=Code(
        gradients=(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {LARGEST_NORM})",),
        trainer={"max_grad_norm": LARGEST_NORM},
        lightning={"gradient_clip_val": LARGEST_NORM},
    ),
)
def clip_gradients(setup: TrainingSetup) -> TrainingSetup:
    """Before each update all gradients are scaled down by the same factor, to a total norm of at most 1."""
    return with_hooks(setup, before=partial(clip, largest_norm=LARGEST_NORM))
