"""Checks whether AdamW is the baseline's optimizer, for techniques that replace plain AdamW or compute it in another
way.

Registers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from bench.setup import TrainingSetup, Unsupported


def check_plain(setup: TrainingSetup, name: str) -> None:
    """Raises Unsupported if the workload brings its own optimizer, whose rule this technique would not keep."""
    if setup.workload.optimizer is not None:
        raise Unsupported(f"{name} keeps the rule of plain AdamW; this workload brings an optimizer of its own")


def by_other_means(setup: TrainingSetup, name: str, *, foreach: bool = False, fused: bool = False) -> TrainingSetup:
    """The setup with an AdamW, the workload's own included, that is computed in a loop, in batches or by one kernel.

    When the optimizer is made, raises Unsupported if it is not AdamW, or if it is already computed that way.
    """
    options = {"foreach": foreach, "fused": fused}
    make = setup.workload.optimizer
    if make is None:
        plain = partial(torch.optim.AdamW, lr=setup.workload.learning_rate)
        return replace(setup, optimizer=partial(plain, fused=True) if fused else partial(plain, foreach=foreach))

    def otherwise(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        if type(optimizer) is not torch.optim.AdamW:
            raise Unsupported(f"{name} computes AdamW; this workload trains with {type(optimizer).__name__}")
        if all(bool(group[key]) is value for group in optimizer.param_groups for key, value in options.items()):
            raise Unsupported(f"{name} is how this workload already computes its AdamW")
        for group in (optimizer.defaults, *optimizer.param_groups):
            group.update(options)
        # As AdamW's constructor does for a fused one.
        optimizer._step_supports_amp_scaling = fused
        optimizer._need_device_dtype_check_for_fused = fused  # type: ignore[attr-defined]
        return optimizer

    return replace(setup, optimizer=otherwise)
