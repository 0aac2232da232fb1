"""Weights that the suite has trained itself, by harness.preparation.pretrain; workloads and teachers load them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import torch
from torch import nn

from bench.corpus import cache_folder, write_atomically
from bench.workload import Workload

UPDATES = 200
"""Updates of the baseline behind a checkpoint: enough to be far better than chance."""

LAYOUT = 2
"""Version of the file's layout; a new number keeps files with an earlier layout from being read."""


def path(workload: Workload) -> Path:
    """The file for the weights of this workload's language model, which may not exist yet. Its name depends on the
    size, the shape and the corpus.

    Raises ValueError for a workload without a family: its model is not known well enough to be found again.
    """
    if workload.family is None or workload.size is None or workload.text is None:
        raise ValueError(f"model {workload.name!r} is of no family, so it cannot be pre-trained here: give FAMILY/SIZE")
    facts = (
        workload.family.name,
        dataclasses.astuple(workload.size),
        workload.text.sequence,
        workload.text.corpus.identity,
        UPDATES,
        LAYOUT,
    )
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return cache_folder() / "checkpoints" / f"{workload.family.name}-{digest}.safetensors"


def save(model: nn.Module, file: Path) -> None:
    """Write the model's weights. Tied weights are written once, under the name where the model uses them first."""
    from safetensors.torch import save_file

    first = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    kept = {name: tensor for name, tensor in model.state_dict().items() if name in first.values()}
    tensors = {name: tensor.contiguous() for name, tensor in kept.items()}
    write_atomically(file, lambda partial: save_file(tensors, partial))


def load(workload: Workload, model: nn.Module) -> nn.Module:
    """Load the pre-trained weights into the model's base. A model with another head keeps its fresh head.

    Raises ValueError if the checkpoint lacks a part of the base.
    """
    from safetensors.torch import load_file

    if torch.get_default_device().type == "meta":
        return model  # If only shapes are wanted, there is nothing to load into.
    base = f"{getattr(model, 'base_model_prefix', '')}."
    own = model.state_dict()
    # If the language model is itself the base of the classifier, its names lack the prefix of the base.
    stored = {name if name in own else base + name: tensor for name, tensor in load_file(str(path(workload))).items()}
    fitting = {name: tensor for name, tensor in stored.items() if name in own and own[name].shape == tensor.shape}
    needed = [name for name, _ in model.named_parameters() if name.startswith(base) and "pooler" not in name]
    lacking = [name for name in needed if name not in fitting]
    if lacking or not fitting:
        raise ValueError(f"the checkpoint of {workload.name} lacks {lacking[:1]} of a {type(model).__name__}")
    model.load_state_dict(fitting, strict=False)
    return model
