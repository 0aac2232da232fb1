"""Weights that the suite has trained itself: harness.pretrain makes them, workloads and teachers load them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import torch
from torch import nn

from bench.corpus import cache_folder
from bench.workload import Workload

UPDATES = 200
"""Updates of the baseline that a checkpoint has seen: enough for a model to have left chance far behind."""


def path(workload: Workload) -> Path:
    """Where the weights of this workload's language model are, or will be: known by its size, shape and corpus.

    Raises ValueError for a workload that is not of a family: its model is not known well enough to be found again.
    """
    if workload.family is None or workload.size is None or workload.text is None:
        raise ValueError(f"model {workload.name!r} is of no family, so the suite cannot pre-train it: name FAMILY/SIZE")
    facts = (
        workload.family.name,
        dataclasses.astuple(workload.size),
        workload.text.sequence,
        workload.text.corpus.sha256,
        UPDATES,
    )
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return cache_folder() / "checkpoints" / f"{workload.family.name}-{digest}.safetensors"


def save(model: nn.Module, file: Path) -> None:
    """Write the model's weights; tied ones once."""
    from safetensors.torch import save_model

    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    save_model(model, str(partial))
    partial.replace(file)


def load(workload: Workload, model: nn.Module) -> nn.Module:
    """Put the pre-trained weights into the model, as far as it has tensors of those names and shapes.

    A model with another head keeps its fresh head. Raises ValueError if nothing of the checkpoint fits.
    """
    from safetensors.torch import load_file

    if torch.get_default_device().type == "meta":
        return model  # Where nothing but shapes is wanted there is nothing to load into.
    own = model.state_dict()
    stored = load_file(str(path(workload)))
    fitting = {name: tensor for name, tensor in stored.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise ValueError(f"the checkpoint of {workload.name} shares no tensor with {type(model).__name__}")
    model.load_state_dict(fitting, strict=False)
    return model
