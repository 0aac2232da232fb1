"""Gradient accumulation."""

from __future__ import annotations

from dataclasses import replace

from bench.registry import Stage, technique
from bench.setup import TrainingSetup, Unsupported


@technique(
    stage=Stage.STEP,
    values=(4, 8),
    source="https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation",
)
def accumulate(setup: TrainingSetup, count: int) -> TrainingSetup:
    """Each update sums the gradients of {value} micro-batches; the global batch stays the same."""
    share = setup.workload.batch // setup.world_size
    if share % count:
        raise Unsupported(f"accumulate_{count} needs a batch a rank that divides by {count}; it is {share}")
    return replace(setup, accumulate=count)
