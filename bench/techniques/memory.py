"""Less memory for more compute."""

from __future__ import annotations

from bench.registry import Stage, technique
from bench.setup import TrainingSetup, Unsupported


@technique(stage=Stage.MEMORY, source="https://arxiv.org/abs/1604.06174")
def checkpoint_activations(setup: TrainingSetup) -> TrainingSetup:
    """Activations inside each layer are dropped in the forward pass and computed again in the backward pass."""
    enable = getattr(setup.model, "gradient_checkpointing_enable", None)
    if enable is None:
        raise Unsupported("checkpoint_activations needs a model with gradient_checkpointing_enable(), as transformers")
    enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return setup
