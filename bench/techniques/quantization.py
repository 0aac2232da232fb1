"""Training with 8-bit numbers, through torchao."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.registry import Change, Stage, gpu, package, technique
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._conv1d import conv1d_to_linear, linear_layers

TORCHAO = package("torchao", "torchao")


def _convertible(setup: TrainingSetup, name: str, multiple: int = 1) -> dict[str, nn.Module]:
    """The model's layers to convert, all nn.Linear now, whose width and height divide by `multiple`.

    Raises Unsupported if there are none.
    """
    # torchao passes over a Conv1D without a word: of GPT-2 it would convert the output head alone.
    conv1d_to_linear(setup.model)
    layers = {
        path: layer
        for path, layer in linear_layers(setup.model).items()
        if not any(size % multiple for size in layer.get_parameter("weight").shape)
    }
    if not layers:
        sizes = f" whose sizes divide by {multiple}" if multiple > 1 else ""
        raise Unsupported(f"{name} needs nn.Linear or Conv1D layers{sizes} under the output head; the model has none")
    return layers


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    # Both own the weight: a masked weight is computed in each forward and is no parameter that torchao could take over.
    excludes={"prune_magnitude_50"},
    slot="quantization",
    needs=[TORCHAO],
    source="https://arxiv.org/abs/1712.05877",
)
def qat_int8(setup: TrainingSetup) -> TrainingSetup:
    """Weights and inputs of linear layers are rounded to int8 and back, so that the model learns to be served in int8.

    Quantization-aware training: it costs time here for accuracy later. Weights stay float32 and tied weights stay tied.
    """
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerAxis, quantize_
    from torchao.quantization.qat import QATConfig

    layers = _convertible(setup, "qat_int8")
    served_as = Int8DynamicActivationIntxWeightConfig(weight_granularity=PerAxis(0))
    quantize_(setup.model, QATConfig(served_as, step="prepare"), filter_fn=lambda _, path: path in layers)
    return setup


class _Int8Products(NamedTuple):
    """Which products of a linear layer run in int8, as torchao's config says it, which torch.compile cannot take in.

    With the dataclass compile leaves its graph at every layer, and the casts that it should fuse run one by one.
    """

    output: bool = True
    grad_input: bool = True
    grad_weight: bool = True


class _RowMajorGradient(torch.autograd.Function):
    """The identity, whose gradient arrives laid out row after row."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def _row_major_gradient(tensor: Tensor) -> Tensor:
    same: Tensor = _RowMajorGradient.apply(tensor)  # type: ignore[no-untyped-call]  # torch has no types here
    return same


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    # The int8 layer ignores autocast and then multiplies operands of two types, which its GPU kernel refuses.
    excludes={"amp_bf16", "amp_fp16", "prune_magnitude_50"},
    slot="quantization",
    needs=[TORCHAO],
    source="https://github.com/pytorch/ao/tree/main/torchao/prototype/quantized_training",
)
def int8_mixed_precision(setup: TrainingSetup) -> TrainingSetup:
    """Linear layers round their inputs, weights and gradients to int8 and multiply those, forward and backward.

    Weights stay float32; the output head is left alone.
    """
    from torch.utils._triton import has_triton
    from torchao.prototype.quantized_training import Int8MixedPrecisionTrainingConfig
    from torchao.quantization import quantize_

    if setup.device.type == "cpu" and has_triton():
        # torchao chooses when it is imported, by what the machine has and not by where the model is.
        raise Unsupported("int8_mixed_precision runs a Triton kernel on a machine with a GPU, and that has no CPU form")
    layers = _convertible(setup, "int8_mixed_precision")
    # The default, a weight subclass, multiplies in float32 without a word: torchao 0.18 registers its F.linear in the
    # table of ATen operators, where nothing looks it up.
    config = Int8MixedPrecisionTrainingConfig(module_swap=True)
    quantize_(setup.model, config, filter_fn=lambda _, path: path in layers)
    for layer in layers.values():
        layer.config = _Int8Products()  # type: ignore[assignment]  # nn.Module declares tensors and modules only
        # torchao flattens with view(), which attention's transposed gradients refuse; nn.Linear takes any layout.
        layer.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous())
        layer.register_forward_hook(lambda _, inputs, output: _row_major_gradient(output))
    return replace(setup, compute="int8")


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    excludes={"prune_magnitude_50"},
    slot="quantization",
    needs=[TORCHAO, gpu((8, 9), "an Ada, Hopper or newer GPU")],
    source="https://arxiv.org/abs/2209.05433",
)
def fp8(setup: TrainingSetup) -> TrainingSetup:
    """Linear layers scale their inputs, weights and gradients to 8-bit floats and multiply those, forward and backward.

    Weights stay float32; the output head is left alone. Without `compile` the casts are kernels of their own and can
    cost more than the products save (https://github.com/pytorch/ao/issues/685).
    """
    from torchao.float8 import convert_to_float8_training

    tokens = setup.workload.tokens_per_sample
    if tokens is not None and tokens % 16:
        # The gradient of a weight sums over tokens, and float8 kernels want every dimension in sixteens.
        raise Unsupported(f"fp8 needs a sequence that divides by 16; it is {tokens}")
    layers = _convertible(setup, "fp8", multiple=16)
    convert_to_float8_training(setup.model, module_filter_fn=lambda _, path: path in layers)
    return replace(setup, compute="float8")
