"""Optimizers, all from torch.optim, at the workload's learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from bench.registry import Change, Stage, technique
from bench.setup import TrainingSetup

OPTIM_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim"


def _optimizer(setup: TrainingSetup, kind: Callable[..., Optimizer], **options: Any) -> TrainingSetup:
    return replace(setup, optimizer=partial(kind, lr=setup.workload.learning_rate, **options))


@technique(
    stage=Stage.OPTIMIZER,
    changes={Change.UPDATE_RULE},
    slot="optimizer",
    source=f"{OPTIM_DOCS}.SGD.html",
)
def sgd_momentum(setup: TrainingSetup) -> TrainingSetup:
    """SGD with momentum 0.9: one state tensor a parameter."""
    return _optimizer(setup, torch.optim.SGD, momentum=0.9)


@technique(
    stage=Stage.OPTIMIZER,
    changes={Change.UPDATE_RULE},
    slot="optimizer",
    source="https://arxiv.org/abs/1412.6980",
)
def adam(setup: TrainingSetup) -> TrainingSetup:
    """Adam without weight decay, PyTorch's default implementation."""
    return _optimizer(setup, torch.optim.Adam)


@technique(stage=Stage.OPTIMIZER, slot="optimizer", source=f"{OPTIM_DOCS}.AdamW.html")
def adamw_foreach(setup: TrainingSetup) -> TrainingSetup:
    """AdamW with its update batched over all parameters (foreach kernels)."""
    return _optimizer(setup, torch.optim.AdamW, foreach=True)


@technique(stage=Stage.OPTIMIZER, slot="optimizer", source=f"{OPTIM_DOCS}.AdamW.html")
def adamw_fused(setup: TrainingSetup) -> TrainingSetup:
    """AdamW with its whole update in one fused kernel."""
    return _optimizer(setup, torch.optim.AdamW, fused=True)


@technique(
    stage=Stage.OPTIMIZER,
    changes={Change.UPDATE_RULE},
    slot="optimizer",
    source="https://arxiv.org/abs/1412.6980",
)
def adamax(setup: TrainingSetup) -> TrainingSetup:
    """Adamax: Adam with the infinity norm in place of the second moment."""
    return _optimizer(setup, torch.optim.Adamax)


@technique(
    stage=Stage.OPTIMIZER,
    changes={Change.UPDATE_RULE},
    slot="optimizer",
    source="https://arxiv.org/abs/1804.04235",
)
def adafactor(setup: TrainingSetup) -> TrainingSetup:
    """Adafactor: the second moment factored into rows and columns, for less memory."""
    return _optimizer(setup, torch.optim.Adafactor)
