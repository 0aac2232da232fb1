"""Graph capture."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from bench.registry import Change, Stage, compiler, technique
from bench.setup import TrainingSetup


@technique(
    stage=Stage.COMPILE,
    # Fused kernels round in another order; the differences stay within the tolerance of numerics.
    changes={Change.NUMERICS},
    needs=[compiler],
    source="https://docs.pytorch.org/docs/stable/generated/torch.compile.html",
)
def compile(setup: TrainingSetup) -> TrainingSetup:
    """The model is captured and fused by torch.compile (inductor) with its defaults."""
    return replace(setup, model=cast(nn.Module, torch.compile(setup.model)))
