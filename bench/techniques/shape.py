"""Other architectures: fewer, smaller, shared or skipped layers, and a vocabulary of an even size."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.registry import TRAINING, Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.spec import Phase
from bench.techniques._blocks import blocks, stacks
from bench.workload import Dimensions

SKIPPED = 0.2
"""The probability of skipping a layer that Fan et al. recommend."""

PADDED_TO = 128
"""Rows: with as many, each row of the head's product starts on a boundary that GPU kernels like, in every format."""


@technique(stage=Stage.SHAPE, changes={Change.ARCHITECTURE}, source="https://arxiv.org/abs/2001.08361")
def fewer_layers(setup: TrainingSetup) -> TrainingSetup:
    """A freshly initialised model with half the layers, otherwise of the same shape."""
    size = _size(setup, "fewer_layers")
    if size.layers < 2:
        raise Unsupported(f"fewer_layers needs two layers or more; the model has {size.layers}")
    return _rebuilt(setup, dataclasses.replace(size, layers=size.layers // 2))


@technique(stage=Stage.SHAPE, changes={Change.ARCHITECTURE}, source="https://arxiv.org/abs/2001.08361")
def narrower(setup: TrainingSetup) -> TrainingSetup:
    """A freshly initialised model of half the width, with as many attention heads, each half as wide."""
    size = _size(setup, "narrower")
    if size.width % (2 * size.heads):
        raise Unsupported(f"narrower needs a width that divides by twice its {size.heads} heads; it is {size.width}")
    return _rebuilt(setup, dataclasses.replace(size, width=size.width // 2))


def _size(setup: TrainingSetup, name: str) -> Dimensions:
    if setup.workload.family is None or setup.workload.size is None:
        raise Unsupported(f"{name} needs a model from a family, FAMILY/SIZE; {setup.workload.name} is from none")
    return setup.workload.size


def _rebuilt(setup: TrainingSetup, size: Dimensions) -> TrainingSetup:
    """The setup with a fresh model of another size of the same family, in place of the one that is there."""
    family = setup.workload.family
    assert family is not None
    build: Callable[[], nn.Module] = partial(family.model, size)
    if setup.workload.phase is Phase.FINETUNE:
        config: Any = setup.model.config
        assert family.classifier is not None
        build = partial(family.classifier, size, config.num_labels)
    with setup.device:
        model = build().to(setup.device).train(setup.model.training)
    workload = dataclasses.replace(setup.workload, model=build, size=size)
    return dataclasses.replace(setup, workload=workload, model=model)


@technique(stage=Stage.MODEL, changes={Change.ARCHITECTURE}, source="https://arxiv.org/abs/1909.11942")
def share_layers(setup: TrainingSetup) -> TrainingSetup:
    """All layers of the stack share the weights of the first, as in ALBERT: the same compute, far fewer parameters."""
    found = [stack for stack in stacks(setup.model).values() if len(set(stack)) > 1]
    if not found:
        raise Unsupported("share_layers needs a stack of two layers or more that do not share weights yet")
    for stack in found:
        shapes = {name: item.shape for name, item in stack[0].named_parameters()}
        # A first layer may have more than the others, as T5's has the bias of positions.
        if any(
            shapes.get(name, item.shape) != item.shape for layer in stack for name, item in layer.named_parameters()
        ):
            raise Unsupported("share_layers needs layers of one shape; those of the model are not alike")
        for index in range(1, len(stack)):
            stack[index] = stack[0]
    return setup


@technique(
    stage=Stage.MODEL,
    changes={Change.OBJECTIVE},
    # Ranks wait for the gradients of every layer, and a skipped one has none.
    excludes={"distribute"},
    phases=TRAINING,
    source="https://arxiv.org/abs/1909.11556",
)
def layer_drop(setup: TrainingSetup) -> TrainingSetup:
    """In training each layer is skipped with a probability of 0.2, drawn again for every forward pass.

    Stochastic depth (https://arxiv.org/abs/1603.09382): a skipped layer is neither computed nor updated.
    """
    found = stacks(setup.model)
    if not found:
        raise Unsupported("layer_drop needs a stack of transformer layers; the model has none")
    for path, stack in found.items():
        if len({tuple((name, item.shape) for name, item in block.named_parameters()) for block in stack}) > 1:
            raise Unsupported(f"layer_drop needs layers that can do without each other; those of {path} are not alike")
    for block in set(blocks(setup.model)):
        block.forward = _skipped_at_random(block)
    return setup


def _skipped_at_random(block: nn.Module) -> Callable[..., Any]:
    compute = block.forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if block.training and _is_skipped():
            return hidden_states
        return compute(hidden_states, *args, **kwargs)

    return forward


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types here
def _is_skipped() -> bool:
    """Drawn on the host, so that no device is waited for, and from torch's generator, which recomputation rewinds."""
    return float(torch.rand((), device="cpu")) < SKIPPED


@technique(
    stage=Stage.MODEL,
    changes={Change.ARCHITECTURE},
    source="https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication/index.html",
    code=Code(model=(f"model.resize_token_embeddings(pad_to_multiple_of={PADDED_TO}, mean_resizing=False)",)),
)
def pad_vocabulary(setup: TrainingSetup) -> TrainingSetup:
    """Embedding and output head are padded to a multiple of 128 rows, an easier size for matrix products.

    No token has the new rows' numbers: they get a share of the probability at first, and training takes it from them.
    """
    model: Any = setup.model
    if not hasattr(model, "resize_token_embeddings"):
        raise Unsupported("pad_vocabulary needs a model with resize_token_embeddings(), as transformers")
    embedding = None
    with contextlib.suppress(NotImplementedError):
        embedding = model.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise Unsupported(f"pad_vocabulary needs a model that reads tokens; not {type(model).__name__}")
    rows = embedding.num_embeddings
    if rows % PADDED_TO == 0:
        raise Unsupported(f"pad_vocabulary needs a vocabulary that is not a multiple of {PADDED_TO}; it is {rows}")
    # The default draws the new rows from the old ones' covariance, minutes of work at full width.
    model.resize_token_embeddings(pad_to_multiple_of=PADDED_TO, mean_resizing=False)
    return setup
