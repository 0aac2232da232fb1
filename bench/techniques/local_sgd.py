"""Ranks that average their parameters now and then in place of their gradients always."""

from __future__ import annotations

from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager

from bench.registry import ALL, Change
from bench.setup import TrainingSetup, with_hooks
from bench.techniques._ranks import agreeing_on_overflow
from bench.techniques.distributed import distribute


@distribute(ranks=ALL, values=(4,), changes={Change.UPDATE_RULE}, source="https://arxiv.org/abs/1805.09767")
def local_sgd(setup: TrainingSetup, period: int) -> TrainingSetup:
    """Each rank updates its own model, and every {value} updates all ranks take the mean of their parameters."""
    averager = PeriodicModelAverager(period)
    averaged = with_hooks(setup, after=lambda optimizer: averager.average_parameters(optimizer.param_groups))
    # A rank that skipped an update alone would leave the others waiting for its parameters.
    return agreeing_on_overflow(averaged)
