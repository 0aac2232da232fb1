"""How one rank's model is cut down to its stage of a pipeline.

Every stage runs the model's own forward pass, which makes masks and positions as usual. What belongs to other stages is
replaced with something that costs nothing, and the output of a stage's last layer ends the forward pass there.
Registers nothing: the pipelines share it.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_map_only

from bench.setup import TrainingSetup, Unsupported
from bench.techniques._blocks import stacks
from bench.workload import first_batch


class Left(Exception):
    """Carries the output of a stage's last layer out of the model's forward pass."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("this stage's forward pass ends here")
        self.hidden = hidden


class Entrance(nn.Module):
    """Stands in for the layers before a stage: returns what the previous rank has sent."""

    hidden: Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> Tensor | None:
        return self.hidden


class _Exit(nn.Module):
    """Stands in for the layers after a stage: the forward pass ends here."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        raise Left(hidden)


class _Absent(nn.Module):
    """Stands in for an embedding or head of another stage. Its output is not used, but the model may look at its shape,
    and at the shapes and types of its parameters."""

    def __init__(self, layer: nn.Module, kept: Collection[Tensor]) -> None:
        super().__init__()
        self._embedding = (layer.embedding_dim, layer.weight.dtype) if isinstance(layer, nn.Embedding) else None
        # A tied weight keeps the name that it has in the whole model.
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter in kept:
                self.register_parameter(name, parameter)
            else:
                setattr(self, name, parameter.new_zeros(()).expand(parameter.shape))
        for name, child in layer.named_children():
            self.add_module(name, _Absent(child, kept))

    def forward(self, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        if self._embedding is None:
            return tensor
        width, dtype = self._embedding
        return tensor.new_zeros(*tensor.shape, width, dtype=dtype)


class Cut(nn.Module):
    """The part of the model that this rank holds, as training calls it. The module inside is the one to inspect."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


Tied = list[tuple[nn.Parameter, distributed.ProcessGroup]]
"""Parameters that other stages hold too, with the group of the ranks that hold them."""


def keep_stage(setup: TrainingSetup, model: nn.Module, entrance: Entrance) -> Tied:
    """Remove from the model, in place, what other ranks run. Returns the parameters that other ranks keep too."""
    layers = _layers(setup, model)
    last, rank = setup.world_size - 1, setup.rank
    stage_of = dict.fromkeys(model.modules(), last) | dict.fromkeys(_called_before(setup, model, layers[0]), 0)
    for index, layer in enumerate(layers):
        stage_of |= dict.fromkeys(layer.modules(), index * setup.world_size // len(layers))
    users: dict[nn.Parameter, set[int]] = defaultdict(set)
    for module, stage in stage_of.items():
        for parameter in module.parameters(recurse=False):
            users[parameter].add(stage)
    trained = set().union(*(ranks for parameter, ranks in users.items() if parameter.requires_grad))
    if len(trained) < setup.world_size:
        raise Unsupported("a pipeline needs something to train on every rank; one rank has only frozen layers")
    kept = {parameter for parameter, ranks in users.items() if rank in ranks}
    for index, layer in enumerate(layers):
        if stage_of[layer] != rank:
            layers[index] = entrance if stage_of[layer] < rank else _Exit()
    for path, module in list(model.named_modules()):
        if path and stage_of.get(module, rank) != rank and next(module.parameters(recurse=False), None) is not None:
            _replace(model, path, _Absent(module, kept))
    return _groups(users, rank)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    # Its parent may already have been replaced.
    with contextlib.suppress(AttributeError):
        model.set_submodule(path, module)


def _layers(setup: TrainingSetup, model: nn.Module) -> nn.ModuleList:
    found = list(stacks(model).values())
    if len(found) != 1:
        raise Unsupported(
            f"a pipeline needs a model that is one stack of layers; {type(model).__name__} has {len(found)}"
        )
    if len(found[0]) < setup.world_size:
        raise Unsupported(f"a pipeline over {setup.world_size} ranks needs a layer for each; there are {len(found[0])}")
    owned = [set(layer.parameters()) for layer in found[0]]
    if len(set().union(*owned)) < sum(map(len, owned)):
        raise Unsupported("a pipeline needs layers of their own; those of this model share weights")
    return found[0]


def _called_before(setup: TrainingSetup, model: nn.Module, first: nn.Module) -> list[nn.Module]:
    """The modules that run before the first layer, found with one sample."""
    called: list[nn.Module] = []

    def leave(layer: nn.Module, inputs: object, output: Any) -> None:
        raise Left(output)

    handles = [module.register_forward_pre_hook(lambda module, _: called.append(module)) for module in model.modules()]
    handles.append(first.register_forward_hook(leave))
    devices = [setup.device] if setup.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        sample = first_batch(setup.workload, 1)
        try:
            setup.loss(model, tree_map_only(Tensor, lambda item: item.to(setup.device), sample))
        except Left as left:
            if not isinstance(left.hidden, Tensor):
                raise Unsupported("a pipeline needs layers that pass one tensor to the next") from None
    for handle in handles:
        handle.remove()
    inside = set(first.modules())
    return [module for module in called if module not in inside and first not in module.modules()]


def _groups(users: Mapping[nn.Parameter, Collection[int]], rank: int) -> Tied:
    """The shared parameters of this rank with their groups. Every rank creates every group, in the same order, because
    torch.distributed requires it."""
    groups = {frozenset(ranks): None for ranks in users.values() if len(ranks) > 1}
    made = {ranks: distributed.new_group(sorted(ranks)) for ranks in groups}
    return [
        (parameter, made[frozenset(ranks)])
        for parameter, ranks in users.items()
        if rank in ranks and len(ranks) > 1 and parameter.requires_grad
    ]
