"""Training a model that has weights, neurons or whole attention heads taken away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from bench.host import package
from bench.registry import Change, Stage, technique
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._blocks import blocks
from bench.techniques._conv1d import conv1d_to_linear, linear_layers

TORCH_PRUNING = package("torch_pruning", "torch-pruning")


@technique(
    # After all that gives the layers another shape: a masked weight is computed, and no parameter to cut.
    stage=Stage.NUMERICS,
    changes={Change.ARCHITECTURE},
    slot="sparsity",
    source="https://arxiv.org/abs/1506.02626",
)
def prune_magnitude_50(setup: TrainingSetup) -> TrainingSetup:
    """The smaller half of each linear layer's weights is masked to 0; the products still run at full size."""
    layers = linear_layers(setup.model)
    if not layers:
        raise Unsupported("prune_magnitude_50 needs nn.Linear or Conv1D layers under the output head; there are none")
    for layer in layers.values():
        prune.l1_unstructured(layer, "weight", amount=0.5)
    return setup


@technique(
    stage=Stage.MODEL,
    changes={Change.ARCHITECTURE},
    needs=[TORCH_PRUNING],
    source="https://arxiv.org/abs/1905.10650",
)
def prune_heads_50(setup: TrainingSetup) -> TrainingSetup:
    """The weaker half of each layer's attention heads is removed, so the attention layers really shrink."""
    with _frozen_stays_frozen(setup.model):
        halved = sum(_halve_heads(module) for module in list(setup.model.modules()))
    if not halved:
        kind = type(setup.model).__name__
        raise Unsupported(f"prune_heads_50 knows the attention layers of BERT and GPT-2 only; {kind} has neither")
    return setup


@contextmanager
def _frozen_stays_frozen(model: nn.Module) -> Iterator[None]:
    """torch-pruning makes new parameters, and those require gradients."""
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    yield
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])


def _halve_heads(module: nn.Module) -> bool:
    """Remove the weaker half of the heads if this is an attention module of a known kind; whether it is one."""
    from transformers.models.bert.modeling_bert import BertAttention
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    if isinstance(module, GPT2Attention):
        # torch-pruning does not know Conv1D.
        conv1d_to_linear(module)
        # One layer makes queries, keys and values, as three blocks of rows.
        module.num_heads = _remove_weaker_half(module, ["c_attn"], "c_proj", module.num_heads)
        module.split_size = module.num_heads * module.head_dim
    elif isinstance(module, BertAttention):
        heads, inputs = module.self, ["self.query", "self.key", "self.value"]
        heads.num_attention_heads = _remove_weaker_half(module, inputs, "output.dense", heads.num_attention_heads)
        heads.all_head_size = heads.num_attention_heads * heads.attention_head_size
    else:
        return False
    return True


def _remove_weaker_half(module: nn.Module, input_paths: Sequence[str], output_path: str, heads: int) -> int:
    """Shrink the layers that make the heads and the layer that mixes them. Returns how many heads are left."""
    import torch_pruning

    if heads % 2:
        raise Unsupported(f"prune_heads_50 removes half of a layer's heads and needs an even number; it is {heads}")
    inputs, output = [_projection(module, path) for path in input_paths], _projection(module, output_path)
    width = output.in_features
    size = width // heads
    weak = head_strength(inputs, output, heads).topk(heads // 2, largest=False).indices.tolist()
    channels = [head * size + offset for head in weak for offset in range(size)]
    for layer in inputs:
        blocks = range(0, layer.out_features, width)
        torch_pruning.prune_linear_out_channels(layer, [block + channel for block in blocks for channel in channels])
    torch_pruning.prune_linear_in_channels(output, channels)
    return heads - len(weak)


def _projection(module: nn.Module, path: str) -> nn.Linear:
    layer = module.get_submodule(path)
    if type(layer) is not nn.Linear:
        raise Unsupported(f"prune_heads_50 needs plain attention projections; {path} is a {type(layer).__name__}")
    return layer


def head_strength(inputs: Sequence[nn.Linear], output: nn.Linear, heads: int) -> Tensor:
    """The sum of squares of each head's weights, shape (heads,): the rows that make it and the columns that read it.

    Each of `inputs` holds one or more blocks of heads x size rows; `output` has heads x size columns.
    """
    with torch.no_grad():
        made = [layer.weight.square().sum(1).view(-1, heads, output.in_features // heads) for layer in inputs]
        read = output.weight.square().sum(0).view(1, heads, -1)
        return torch.cat([*made, read]).sum(dim=(0, 2))


@technique(
    stage=Stage.MODEL,
    changes={Change.ARCHITECTURE},
    needs=[TORCH_PRUNING],
    source="https://arxiv.org/abs/1608.08710",
)
def prune_mlp_50(setup: TrainingSetup) -> TrainingSetup:
    """The weaker half of the neurons between each layer's MLP products is removed, so the MLPs really shrink."""
    import torch_pruning

    conv1d_to_linear(setup.model)
    with _frozen_stays_frozen(setup.model):
        found = [mlp for block in dict.fromkeys(blocks(setup.model)) for mlp in mlps(block)]
        for inputs, output in found:
            strength = head_strength(inputs, output, heads=output.in_features)
            weak = strength.topk(output.in_features // 2, largest=False).indices.tolist()
            for layer in inputs:
                torch_pruning.prune_linear_out_channels(layer, weak)
            torch_pruning.prune_linear_in_channels(output, weak)
    if not found:
        raise Unsupported("prune_mlp_50 needs layers that widen with one plain nn.Linear and narrow with another")
    return setup


def mlps(block: nn.Module) -> list[tuple[list[nn.Linear], nn.Linear]]:
    """The MLPs of one transformer block: the layers that make its neurons (two where one gates) and what reads them.

    A reader narrows what others, of the opposite shape, have widened; attention may look like that and is left out.
    """
    by_shape: dict[tuple[int, int], list[nn.Linear]] = defaultdict(list)
    for path, layer in block.named_modules():
        if type(layer) is nn.Linear and "att" not in path.lower():
            by_shape[layer.in_features, layer.out_features].append(layer)
    return [
        (by_shape[narrow, wide], readers[0])
        for (wide, narrow), readers in list(by_shape.items())
        if wide > narrow and len(readers) == 1 and (narrow, wide) in by_shape
    ]
