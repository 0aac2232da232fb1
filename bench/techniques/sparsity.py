"""Weights that become 0 while training goes on, and weights in a pattern of zeros that the GPU can skip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from bench.host import gpu, package
from bench.registry import Change, Stage, technique
from bench.setup import TrainingSetup, Unsupported, with_hooks
from bench.techniques._conv1d import conv1d_to_linear, linear_layers
from bench.techniques.precision import unless_narrower

FINAL_SPARSITY = 0.5
RAMP_UPDATES = 100
"""Updates until the final sparsity is reached: few, so that a run of seconds gets there, with new zeros at each."""


@technique(
    # After the optimizer is chosen: what happens at its updates is a hook of it.
    stage=Stage.STEP,
    changes={Change.ARCHITECTURE},
    # What an adapter adds is dense, so the sum would not be sparse.
    excludes={"lora", "qlora"},
    slot="sparsity",
    source="https://arxiv.org/abs/1710.01878",
)
def prune_gradual(setup: TrainingSetup) -> TrainingSetup:
    """After each update the smallest weights of each linear layer become 0 for good: half of them after 100 updates."""
    layers = _linear_in(setup.model)
    if not layers:
        raise Unsupported("prune_gradual needs nn.Linear or Conv1D layers under the output head; there are none")
    return with_hooks(setup, after=_GradualPruning(layers))


def sparsity_after(updates: int) -> float:
    """The share of zeros after so many updates: rising fast at first, then ever more slowly."""
    left = 1 - min(1.0, updates / RAMP_UPDATES)
    return FINAL_SPARSITY * (1 - left**3)


class _GradualPruning:
    """Sets weights to 0 and keeps them there. A rank that holds a part of a weight prunes its part."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers
        self._masks: dict[nn.Module, Tensor] = {}
        self._updates = 0

    @torch.no_grad()
    def __call__(self, _: object) -> None:
        self._updates += 1
        for layer in self._layers:
            whole: Any = layer.weight
            weight: Tensor = whole.to_local() if isinstance(whole, DTensor) else whole
            # What was 0 before the update comes first again among the smallest.
            if layer in self._masks:
                weight.mul_(self._masks[layer])
            if self._updates <= RAMP_UPDATES:
                weight.mul_(self._renewed(layer, weight))

    def _renewed(self, layer: nn.Module, weight: Tensor) -> Tensor:
        smallest = weight.abs().flatten().topk(int(sparsity_after(self._updates) * weight.numel()), largest=False)
        mask = torch.ones_like(weight, memory_format=torch.contiguous_format)
        mask.view(-1)[smallest.indices] = 0
        self._masks[layer] = mask
        return mask


def _linear_in(model: nn.Module) -> list[nn.Module]:
    """The linear layers under the output head, in whatever wrapper the model is by now and whatever they compute in."""
    from transformers.pytorch_utils import Conv1D

    modules: list[Any] = list(model.modules())
    heads = [module.get_output_embeddings() for module in modules if hasattr(module, "get_output_embeddings")]
    found = [module for module in modules if isinstance(module, nn.Linear | Conv1D)]
    return [module for module in found if not any(module is head for head in heads)]


@technique(
    stage=Stage.NUMERICS,
    changes={Change.ARCHITECTURE, Change.NUMERICS},
    # Both say what the layer multiplies.
    excludes={"quantization"},
    slot="sparsity",
    needs=[package("torchao", "torchao"), gpu((8, 0), "an Ampere or newer GPU")],
    source="https://arxiv.org/abs/2104.08378",
)
def sparse_2_4(setup: TrainingSetup) -> TrainingSetup:
    """Linear layers keep the two largest of every four weights, chosen again in each forward pass, and skip the zeros.

    Their products run in bfloat16 where the model is float32, for there are no such kernels of float32.
    """
    if not torch.backends.cusparselt.is_available():
        raise Unsupported("sparse_2_4 needs a torch build with cuSPARSELt; this one has none")
    return semi_sparse(setup)


def semi_sparse(setup: TrainingSetup) -> TrainingSetup:
    """The setup whose linear layers choose two of each four weights in every forward."""
    from torchao.sparsity.training import (
        SemiSparseLinear,
        semi_structured_sparsify,
        swap_linear_with_semi_sparse_linear,
    )

    class HalfPrecisionSparseLinear(SemiSparseLinear):  # type: ignore[misc]  # torchao has no types
        def forward(self, inputs: Tensor) -> Tensor:
            kind = half_format(self.weight)
            weight: Any = semi_structured_sparsify(self.weight.to(kind), backend="cusparselt")
            bias = None if self.bias is None else self.bias.to(kind)
            return functional.linear(inputs.to(kind), weight, bias).to(inputs.dtype)

    conv1d_to_linear(setup.model)
    # The tiles in which the kernels look for the larger weights.
    layers = {
        path: layer
        for path, layer in linear_layers(setup.model).items()
        if not any(size % 64 for size in layer.get_parameter("weight").shape)
    }
    if not layers:
        raise Unsupported("sparse_2_4 needs nn.Linear or Conv1D layers whose sizes divide by 64; the model has none")
    swap_linear_with_semi_sparse_linear(setup.model, dict.fromkeys(layers, HalfPrecisionSparseLinear))
    return replace(setup, compute=unless_narrower(setup, "bfloat16"))


def half_format(weight: Tensor) -> torch.dtype:
    """What a sparse product runs in: autocast's format, which it could not cast a sparse weight to; else 16 bits."""
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return torch.bfloat16 if weight.dtype is torch.float32 else weight.dtype
