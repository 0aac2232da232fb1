"""A model's layers in a script: an expression for the repeated blocks, and the conversion of linear layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from bench.script.code import Code
from bench.techniques._blocks import stacks
from bench.workload import Workload

CONV1D_TO_LINEAR = (
    "for name, layer in list(model.named_modules()):",
    "    if isinstance(layer, Conv1D):  # holds its weight the other way round",
    '        linear = torch.nn.Linear(*layer.weight.shape, device="meta")',
    "        linear.weight = torch.nn.Parameter(layer.weight.detach().T.contiguous())",
    "        linear.bias = layer.bias",
    "        model.set_submodule(name, linear)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """`blocks` iterates over the repeated layers of `model`; `conv1d`: some layers are transformers' Conv1D."""

    blocks: str
    conv1d: bool

    def written(self, code: Code) -> Code:
        """Fill the code in for these layers."""
        if code.linear and self.conv1d:
            code = replace(
                code,
                imports=("from transformers.pytorch_utils import Conv1D", *code.imports),
                model=(*CONV1D_TO_LINEAR, *code.model),
            )
        return code.filled("{blocks}", self.blocks)


def layers_of(model: nn.Module) -> Layers:
    from transformers.pytorch_utils import Conv1D

    paths = [f"model.{path}" for path in stacks(model)]
    return Layers(
        blocks=paths[0] if len(paths) == 1 else f"({', '.join(f'*{path}' for path in paths)})",
        conv1d=any(isinstance(module, Conv1D) for module in model.modules()),
    )


def layers(workload: Workload) -> Layers:
    """The layers of the workload's model."""
    with torch.device("meta"):
        return layers_of(workload.model())
