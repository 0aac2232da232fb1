"""What several ranks of one model need: one view of overflows, and optimizers over sharded tensors.

Registers nothing: the techniques of several ranks share it.
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
    """The module that torch.compile has wrapped: changed before its first call, it is compiled as changed."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def agreeing_on_overflow(setup: TrainingSetup) -> TrainingSetup:
    """Where each rank has gradients of its own, an overflow in one makes all of them skip the update."""
    if setup.scaler is None:
        return setup
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    scaler, make = ShardedGradScaler(setup.device.type), setup.optimizer
    scaler.load_state_dict(setup.scaler.state_dict())

    def unscaled(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        # A fused optimizer looks for overflows by itself, and then in the gradients of its rank alone.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # GradScaler asks for it
        return optimizer

    return replace(setup, scaler=scaler, optimizer=unscaled)


def grouped_by_mesh(make: MakeOptimizer) -> MakeOptimizer:
    """Batched kernels take a group at once, and tensors of different meshes, or of none, do not mix in one call."""

    def grouped(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return make(as_parameters(part for group in as_groups(parameters) for part in _by_mesh(group)))

    return grouped


def _by_mesh(group: Group) -> list[Group]:
    meshes: dict[Any, list[Tensor]] = defaultdict(list)
    for parameter in group["params"]:
        meshes[parameter.device_mesh if isinstance(parameter, DTensor) else None].append(parameter)
    return [part_of(group, members) for members in meshes.values()]
