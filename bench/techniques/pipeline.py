"""Layers that live on different ranks: each runs the layers of its stage and passes on what they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_leaves

from bench.registry import ALL
from bench.setup import TrainingSetup, Unsupported, split
from bench.spec import Phase
from bench.techniques._ranks import agreeing_on_overflow, uncompiled
from bench.techniques._stage import Cut, Entrance, Left, Tied, keep_stage
from bench.techniques.distributed import distribute
from bench.workload import Batch

MICRO_BATCHES = 4
"""At least: with fewer than ranks, some would never have work."""

# A classifier is scored by calling the whole model, which no rank has.
stages = partial(distribute, ranks=ALL, replicas=1, phases={Phase.PRETRAIN})


@stages(source="https://arxiv.org/abs/1811.06965")
def pipeline_gpipe(setup: TrainingSetup) -> TrainingSetup:
    """Each rank holds consecutive layers; four or more micro-batches go forward through all ranks, then all go back."""
    from torch.distributed.pipelining import ScheduleGPipe

    return _pipelined(setup, ScheduleGPipe, max(MICRO_BATCHES, setup.world_size))


@stages(source="https://arxiv.org/abs/1806.03377")
def pipeline_1f1b(setup: TrainingSetup) -> TrainingSetup:
    """Each rank holds consecutive layers and runs a micro-batch's backward pass as early as it can, to free memory."""
    from torch.distributed.pipelining import Schedule1F1B

    return _pipelined(setup, Schedule1F1B, max(MICRO_BATCHES, setup.world_size))


@stages(source="https://docs.pytorch.org/tutorials/intermediate/model_parallel_tutorial.html")
def model_split(setup: TrainingSetup) -> TrainingSetup:
    """Each rank holds consecutive layers; the whole batch goes through the ranks, so only one works at a time."""
    from torch.distributed.pipelining import ScheduleGPipe

    return _pipelined(setup, ScheduleGPipe, 1)


def _pipelined(setup: TrainingSetup, schedule: Callable[..., Any], micro_batches: int) -> TrainingSetup:
    model, entrance = uncompiled(setup.model), Entrance()
    tied = keep_stage(setup, model, entrance)
    pipeline = _Pipeline(entrance, tied, schedule, micro_batches)
    return agreeing_on_overflow(replace(setup, model=Cut(setup.model), gradients=pipeline))


class _Stage(nn.Module):
    """What the schedule runs: from what the rank before has sent to what the next one needs, or to the loss."""

    def __init__(self, setup: TrainingSetup, entrance: Entrance, parts: int) -> None:
        super().__init__()
        self._setup, self._entrance, self._parts = setup, entrance, parts
        self.losses: list[Tensor] = []

    def forward(self, hidden: Tensor | None = None, *, batch: Batch) -> Tensor:
        setup, self._entrance.hidden = self._setup, hidden
        try:
            with setup.autocast():
                loss = setup.loss(setup.model, batch) / self._parts
        except Left as left:
            return left.hidden
        finally:
            self._entrance.hidden = None
        self.losses.append(loss.detach())
        return loss if setup.scaler is None else setup.scaler.scale(loss)


class _Pipeline:
    """The gradients of one update: the schedule over its micro-batches, and one sum for what is tied."""

    def __init__(self, entrance: Entrance, tied: Tied, schedule: Callable[..., Any], micro_batches: int) -> None:
        self._entrance, self._tied = entrance, tied
        self._schedule, self._micro_batches = schedule, micro_batches
        self._made: dict[Any, tuple[_Stage, Any]] = {}

    def __call__(self, setup: TrainingSetup, batch: Batch) -> Tensor:
        loss = torch.zeros((), device=setup.device)
        if setup.scaler is not None:
            # The scale is created on first use, and most stages have no loss that would use it.
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
        # The loss is the last stage's output; the target only has to exist.
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
            assert isinstance(setup.model, Cut)
            devices = [setup.device] if setup.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                given = _Stage(replace(setup, model=setup.model.module), self._entrance, 1)(batch=batch)
            seen = [(given.shape, given.dtype, given.requires_grad)]
        distributed.broadcast_object_list(seen, src=0, device=setup.device)
        shape, dtype, trained = seen[0]
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=trained)
