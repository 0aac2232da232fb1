"""Gradient accumulation."""

from __future__ import annotations

from dataclasses import replace

from bench.registry import Stage, technique
from bench.setup import TrainingSetup, Unsupported


@technique(
    stage=Stage.STEP,
    values=(2, 4, 8, 16),
    source="https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation",
)
def accumulate(setup: TrainingSetup, count: int) -> TrainingSetup:
    """Each update sums the gradients of {value} micro-batches; the global batch stays the same."""
    if setup.share % count:
        ranks = f" on each of {setup.replicas} ranks" if setup.replicas > 1 else ""
        raise Unsupported(f"accumulate_{count} needs a batch that divides by {count}; it is {setup.share}{ranks}")
    return replace(setup, accumulate=count)
