"""Gradient accumulation."""

from __future__ import annotations

from dataclasses import replace

from torch.nn.modules.batchnorm import _BatchNorm

from bench.registry import Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported


@technique(
    stage=Stage.STEP,
    values=(2, 4, 8, 16),
    source="https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation",
    code=Code(
        accumulate="{value}",
        trainer={"gradient_accumulation_steps": "{value}"},
        lightning={"accumulate_grad_batches": "{value}"},
    ),
)
def accumulate(setup: TrainingSetup, count: int) -> TrainingSetup:
    """Each update sums the gradients of {value} micro-batches; the global batch stays the same."""
    if setup.share % count:
        ranks = f" on each of {setup.replicas} ranks" if setup.replicas > 1 else ""
        raise Unsupported(f"accumulate_{count} needs a batch that divides by {count}; it is {setup.share}{ranks}")
    if setup.share == count and any(isinstance(module, _BatchNorm) for module in setup.model.modules()):
        raise Unsupported(f"accumulate_{count} leaves one sample to a pass; this model normalises over several")
    return replace(setup, accumulate=count)
