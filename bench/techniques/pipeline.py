"""Layers that live on different ranks: each runs the layers of its stage and passes on what they give.

Every stage runs the model's own forward, which makes masks and positions as ever; what belongs to other stages is
replaced by something that costs nothing, and what the last layer of a stage gives leaves the forward there.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader

from bench.registry import ALL
from bench.setup import TrainingSetup, Unsupported, split
from bench.spec import Phase
from bench.techniques._blocks import stacks
from bench.techniques._ranks import agreeing_on_overflow, uncompiled
from bench.techniques.distributed import distribute
from bench.workload import Batch

MICRO_BATCHES = 4

# A classifier is scored by calling the whole model, which no rank has.
stages = partial(distribute, ranks=ALL, replicas=1, phases={Phase.PRETRAIN})


@stages(source="https://arxiv.org/abs/1811.06965")
def pipeline_gpipe(setup: TrainingSetup) -> TrainingSetup:
    """Each rank holds a run of layers; four micro-batches go forward through all ranks, then all four go back."""
    from torch.distributed.pipelining import ScheduleGPipe

    return _pipelined(setup, ScheduleGPipe, MICRO_BATCHES)


@stages(source="https://arxiv.org/abs/1806.03377")
def pipeline_1f1b(setup: TrainingSetup) -> TrainingSetup:
    """Each rank holds a run of layers and turns to a micro-batch's backward as soon as it can, to free its memory."""
    from torch.distributed.pipelining import Schedule1F1B

    return _pipelined(setup, Schedule1F1B, MICRO_BATCHES)


@stages(source="https://docs.pytorch.org/tutorials/intermediate/model_parallel_tutorial.html")
def model_split(setup: TrainingSetup) -> TrainingSetup:
    """Each rank holds a run of layers and the whole batch goes through them, so that one rank works at a time."""
    from torch.distributed.pipelining import ScheduleGPipe

    return _pipelined(setup, ScheduleGPipe, 1)


def _pipelined(setup: TrainingSetup, schedule: Callable[..., Any], micro_batches: int) -> TrainingSetup:
    model, entrance = uncompiled(setup.model), _Entrance()
    tied = _keep_stage(setup, model, entrance)
    pipeline = _Pipeline(entrance, tied, schedule, micro_batches)
    return agreeing_on_overflow(replace(setup, model=_Cut(setup.model), gradients=pipeline))


class _Left(Exception):
    """Carries what the last layer of a stage gives out of the model's forward."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("this stage's forward pass ends here")
        self.hidden = hidden


class _Entrance(nn.Module):
    """In place of the layers before a stage: gives what the rank before has sent."""

    hidden: Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> Tensor | None:
        return self.hidden


class _Exit(nn.Module):
    """In place of the layers after a stage: the forward pass ends here."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        raise _Left(hidden)


class _Absent(nn.Module):
    """In place of an embedding or head of another stage: what it gives is not used, but its shape may be looked at."""

    def __init__(self, layer: nn.Module, kept: Collection[Tensor]) -> None:
        super().__init__()
        self._embedding = (layer.embedding_dim, layer.weight.dtype) if isinstance(layer, nn.Embedding) else None
        # A tied weight goes by the name that it has in the whole model.
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter in kept:
                self.register_parameter(name, parameter)

    def forward(self, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        if self._embedding is None:
            return tensor
        width, dtype = self._embedding
        return tensor.new_zeros(*tensor.shape, width, dtype=dtype)


class _Cut(nn.Module):
    """The part of the model that this rank holds, as it is called in training; what is called to look is inside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


Tied = list[tuple[nn.Parameter, distributed.ProcessGroup]]
"""Parameters that other stages hold too, with the group of the ranks that do."""


def _keep_stage(setup: TrainingSetup, model: nn.Module, entrance: _Entrance) -> Tied:
    """Take out of the model, in place, what other ranks run. Returns the parameters that other ranks keep too."""
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
        raise Unsupported("a pipeline needs something to train on every rank; the layers of one are all frozen")
    kept = {parameter for parameter, ranks in users.items() if rank in ranks}
    for index, layer in enumerate(layers):
        if stage_of[layer] != rank:
            layers[index] = entrance if stage_of[layer] < rank else _Exit()
    for path, module in list(model.named_modules()):
        if path and stage_of.get(module, rank) != rank and next(module.parameters(recurse=False), None) is not None:
            _replace(model, path, _Absent(module, kept))
    return _groups(users, rank)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    # What it was inside of may be gone already.
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
    """The modules that run before the first layer does, found with one sample."""
    called: list[nn.Module] = []

    def leave(layer: nn.Module, inputs: object, output: Any) -> None:
        raise _Left(output)

    handles = [module.register_forward_pre_hook(lambda module, _: called.append(module)) for module in model.modules()]
    handles.append(first.register_forward_hook(leave))
    devices = [setup.device] if setup.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        sample = next(iter(DataLoader(setup.workload.data(), batch_size=1)))  # type: ignore[arg-type]
        try:
            setup.loss(model, tree_map_only(Tensor, lambda item: item.to(setup.device), sample))
        except _Left as left:
            if not isinstance(left.hidden, Tensor):
                raise Unsupported("a pipeline needs layers that give one tensor to the next") from None
    for handle in handles:
        handle.remove()
    inside = set(first.modules())
    return [module for module in called if module not in inside and next(module.children(), None) is None]


def _groups(users: Mapping[nn.Parameter, Collection[int]], rank: int) -> Tied:
    """Every rank makes every group, in the same order, as torch.distributed wants it."""
    groups = {frozenset(ranks): None for ranks in users.values() if len(ranks) > 1}
    made = {ranks: distributed.new_group(sorted(ranks)) for ranks in groups}
    return [
        (parameter, made[frozenset(ranks)])
        for parameter, ranks in users.items()
        if rank in ranks and len(ranks) > 1 and parameter.requires_grad
    ]


class _Stage(nn.Module):
    """What the schedule runs: from what the rank before has sent to what the next one needs, or to the loss."""

    def __init__(self, setup: TrainingSetup, entrance: _Entrance, parts: int) -> None:
        super().__init__()
        self._setup, self._entrance, self._parts = setup, entrance, parts
        self.losses: list[Tensor] = []

    def forward(self, hidden: Tensor | None = None, *, batch: Batch) -> Tensor:
        setup, self._entrance.hidden = self._setup, hidden
        try:
            with setup.autocast():
                loss = setup.loss(setup.model, batch) / self._parts
        except _Left as left:
            return left.hidden
        finally:
            self._entrance.hidden = None
        self.losses.append(loss.detach())
        return loss if setup.scaler is None else setup.scaler.scale(loss)


class _Pipeline:
    """The gradients of one update: the schedule over its micro-batches, and one sum for what is tied."""

    def __init__(self, entrance: _Entrance, tied: Tied, schedule: Callable[..., Any], micro_batches: int) -> None:
        self._entrance, self._tied = entrance, tied
        self._schedule, self._micro_batches = schedule, micro_batches
        self._made: dict[Any, tuple[_Stage, Any]] = {}

    def __call__(self, setup: TrainingSetup, batch: Batch) -> Tensor:
        loss = torch.zeros((), device=setup.device)
        if setup.scaler is not None:
            # The scale is made when it is first asked for, and most stages have no loss to ask it for.
            setup.scaler.scale(loss)
        for part in split(batch, setup.accumulate):
            loss += self._run(setup, part)
        for parameter, group in self._tied:
            distributed.all_reduce(parameter.grad, group=group)
        distributed.broadcast(loss, src=setup.world_size - 1)
        return loss

    def _run(self, setup: TrainingSetup, batch: Batch) -> Tensor | float:
        """Forward and backward of a batch. Returns its part of the update's mean loss, 0 but on the last rank."""
        leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
        count = len(leaves[0])
        if count % self._micro_batches:
            raise Unsupported(
                f"a pipeline of {self._micro_batches} micro-batches needs a multiple of them; it is {count}"
            )
        shapes = tuple(leaf.shape for leaf in leaves)
        if shapes not in self._made:
            self._made[shapes] = self._make(setup, batch)
        stage, schedule = self._made[shapes]
        # The loss is the last stage's output: nothing is asked of the target but that there is one.
        schedule.step(batch=batch, target=leaves[0], return_outputs=False)
        losses, stage.losses = stage.losses, []
        return sum(losses)

    def _make(self, setup: TrainingSetup, batch: Batch) -> tuple[_Stage, Any]:
        """The stage and its schedule for batches of one shape, which the buffers between the ranks are made for."""
        from torch.distributed.pipelining import PipelineStage

        stage = _Stage(setup, self._entrance, self._micro_batches * setup.accumulate)
        hidden = self._hidden(setup, split(batch, self._micro_batches)[0])
        is_first, is_last = setup.rank == 0, setup.rank == setup.world_size - 1
        loss = torch.empty((), device="meta", requires_grad=True)
        piped = PipelineStage(
            stage,
            setup.rank,
            setup.world_size,
            setup.device,
            input_args=() if is_first else hidden,
            output_args=loss if is_last else hidden,
        )
        options = {"loss_fn": lambda output, _: output, "scale_grads": False}
        return stage, self._schedule(piped, self._micro_batches, **options)

    def _hidden(self, setup: TrainingSetup, batch: Batch) -> Tensor:
        """What one layer hands to the next for this micro-batch, without its data: the first rank tries it."""
        seen: list[Any] = [None]
        if setup.rank == 0:
            assert isinstance(setup.model, _Cut)
            devices = [setup.device] if setup.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                given = _Stage(replace(setup, model=setup.model.module), self._entrance, 1)(batch=batch)
            seen = [(given.shape, given.dtype, given.requires_grad)]
        distributed.broadcast_object_list(seen, src=0, device=setup.device)
        shape, dtype, trained = seen[0]
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=trained)
