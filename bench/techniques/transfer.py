"""Training only a part of the model, or only what is added to it."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

from bench.host import package
from bench.registry import TRAINING, Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._blocks import blocks, stacks
from bench.techniques._conv1d import conv1d_to_linear

PEFT = package("peft", "peft")
RANK = 8
NF4_BLOCK = 64
"""Weights that share one scale, as published; the scales are quantized in turn, up to 256 at a time."""

FREEZE_EMBEDDINGS = '''def freeze_embeddings(model, layers):
    """Those that are not inside the layers stay as they are."""
    inside = {module for layer in layers for module in layer.modules()}
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module not in inside:
            module.requires_grad_(False)'''

# All techniques here are of stage MEMORY: what they freeze or adapt has its shape and its number format by then.


@technique(
    stage=Stage.MEMORY,
    changes={Change.TRAINED_PARAMETERS},
    slot="trained",
    source="https://arxiv.org/abs/1911.03090",
    code=Code(
        imports=("import itertools", "import math"),
        model=(
            "layers = list({blocks})",
            "first = next(layers[-math.ceil(len(layers) / 4)].parameters())",
            "for parameter in itertools.takewhile(lambda item: item is not first, model.parameters()):",
            "    parameter.requires_grad_(False)",
        ),
    ),
)
def train_last_layers(setup: TrainingSetup) -> TrainingSetup:
    """Only the last quarter of the layers and what follows them are trained; a head tied to the embeddings is not.

    Gradients of a tied head would have to travel through every layer to the embeddings.
    """
    layers = blocks(setup.model)
    if not layers:
        raise Unsupported("train_last_layers needs a stack of transformer layers; the model has none")
    first = next(layers[-math.ceil(len(layers) / 4)].parameters())
    for parameter in itertools.takewhile(lambda item: item is not first, setup.model.parameters()):
        parameter.requires_grad_(False)
    return setup


@technique(
    stage=Stage.MEMORY,
    changes={Change.TRAINED_PARAMETERS},
    slot="trained",
    source="https://arxiv.org/abs/1911.03090",
    code=Code(
        functions=(FREEZE_EMBEDDINGS,),
        model=("freeze_embeddings(model, {blocks})",),
    ),
)
def freeze_embeddings(setup: TrainingSetup) -> TrainingSetup:
    """The embeddings, and a head that is tied to them, are not trained; everything else is."""
    inside = {module for stack in stacks(setup.model).values() for module in stack.modules()}
    found = [item for item in setup.model.modules() if isinstance(item, nn.Embedding) and item not in inside]
    if not found:
        raise Unsupported("freeze_embeddings needs nn.Embedding layers; the model has none")
    for embedding in found:
        embedding.requires_grad_(False)
    return setup


@technique(
    stage=Stage.MEMORY,
    changes={Change.TRAINED_PARAMETERS, Change.ARCHITECTURE},
    slot="trained",
    needs=[PEFT],
    phases=TRAINING,
    source="https://arxiv.org/abs/2106.09685",
)
def lora(setup: TrainingSetup) -> TrainingSetup:
    """Every linear layer of the stack is frozen and gets two small trained matrices of rank 8 beside it.

    All else, embeddings and head too, is frozen.
    """
    _adapt(setup, "lora")
    return setup


@technique(
    stage=Stage.MEMORY,
    changes={Change.TRAINED_PARAMETERS, Change.ARCHITECTURE, Change.NUMERICS},
    # All of them say what the weights are made of; a masked weight is computed anew in each forward.
    excludes={"quantization", "prune_magnitude_50", "sparse_2_4"},
    slot="trained",
    needs=[PEFT, package("torchao", "torchao")],
    phases=TRAINING,
    source="https://arxiv.org/abs/2305.14314",
)
def qlora(setup: TrainingSetup) -> TrainingSetup:
    """Like lora, but the frozen weights are kept in 4 bits (NF4) and turned into floats for each product.

    The 4-bit weights are no parameters: nothing trains, counts or shards them.
    """
    conv1d_to_linear(setup.model)
    for path, layer in _projections(setup.model).items():
        _to_nf4(path, layer)
    _adapt(setup, "qlora")
    return setup


def _projections(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of the stacks by name, Conv1D too, in whatever numbers they compute."""
    from transformers.pytorch_utils import Conv1D

    return {
        f"{path}.{name}": layer
        for path, stack in stacks(model).items()
        for name, layer in stack.named_modules()
        if isinstance(layer, nn.Linear | Conv1D)
    }


def _adapt(setup: TrainingSetup, name: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    layers = _projections(setup.model)
    if not layers:
        raise Unsupported(f"{name} needs a stack of layers with nn.Linear or Conv1D inside; the model has none")
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=list(layers),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
    )
    inject_adapter_in_model(config, setup.model)


def _to_nf4(path: str, layer: nn.Module) -> None:
    """Put the layer's weight into 4 bits, in place."""
    from torchao.quantization import NF4Tensor

    weight = layer.get_parameter("weight").detach()
    if weight.numel() % NF4_BLOCK:
        raise Unsupported(f"qlora needs weights that divide into blocks of {NF4_BLOCK}; {path} has {weight.numel()}")
    scales_together = math.gcd(256, weight.numel() // NF4_BLOCK)
    with torch.no_grad():
        packed = NF4Tensor.from_tensor(weight, NF4_BLOCK, scales_together)
    del layer.weight
    # A plain attribute: torchao's tensor cannot be copied, strided or sharded as parameters are.
    layer.weight = packed
