"""What several ranks of one model need: agreement on overflows, and optimizers over sharded tensors.

Registers nothing: the techniques with several ranks share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from bench.setup import TrainingSetup
from bench.techniques._joint import Group, as_groups, as_parameters, part_of

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


def uncompiled(model: nn.Module) -> nn.Module:
    """The module that torch.compile has wrapped. If it is changed before its first call, it is compiled with the
    change."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def agreeing_on_overflow(setup: TrainingSetup) -> TrainingSetup:
    """Make an overflow on one rank skip the update on all, where each rank has gradients of its own."""
    if setup.scaler is None:
        return setup
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    scaler, make = ShardedGradScaler(setup.device.type), setup.optimizer
    scaler.load_state_dict(setup.scaler.state_dict())

    def unscaled(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        # A fused optimizer looks for overflows itself, and then only in the gradients of its own rank.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # GradScaler asks for it
        return optimizer

    return replace(setup, scaler=scaler, optimizer=unscaled)


def grouped_by_mesh(make: MakeOptimizer) -> MakeOptimizer:
    """Give every mesh parameter groups of its own. Batched kernels take a whole group, and tensors of different meshes,
    or of none, cannot be mixed in one call."""

    def grouped(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return make(as_parameters(part for group in as_groups(parameters) for part in _by_mesh(group)))

    return grouped


def _by_mesh(group: Group) -> list[Group]:
    meshes: dict[Any, list[Tensor]] = defaultdict(list)
    for parameter in group["params"]:
        meshes[parameter.device_mesh if isinstance(parameter, DTensor) else None].append(parameter)
    return [part_of(group, members) for members in meshes.values()]
