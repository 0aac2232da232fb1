"""Training with 8-bit and 4-bit numbers, through torchao."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from bench.host import compiler, gpu, on_gpu, package
from bench.registry import Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._conv1d import LINEAR_LAYERS, conv1d_to_linear, linear_layers

TORCHAO = package("torchao", "torchao")

QUANTIZE = "quantize_(model, config, lambda layer, _: layer in layers)"


def _written(*lines: str, imports: tuple[str, ...], multiple: int = 1) -> Code:
    """The `lines` convert the `layers` whose sizes divide by `multiple`."""
    divides = f"layers = {{layer for layer in layers if not any(n % {multiple} for n in layer.weight.shape)}}"
    chosen = (divides,) if multiple > 1 else ()
    return Code(imports=imports, model=(*LINEAR_LAYERS, *chosen, *lines), linear=True)


def _qat(weights: str, granularity: str, size: str, multiple: int = 1) -> Code:
    served_as = f"weight_dtype=torch.{weights}, weight_granularity={granularity}({size})"
    kinds = f"Int8DynamicActivationIntxWeightConfig, {granularity}"
    return _written(
        f"served_as = Int8DynamicActivationIntxWeightConfig({served_as})",
        'config = QATConfig(served_as, step="prepare")',
        QUANTIZE,
        imports=(
            f"from torchao.quantization import {kinds}, quantize_",
            "from torchao.quantization.qat import QATConfig",
        ),
        multiple=multiple,
    )


def _fp8(recipe: str) -> Code:
    return _written(
        f'config = Float8LinearConfig.from_recipe_name("{recipe}")',
        "convert_to_float8_training(model, config=config, module_filter_fn=lambda layer, _: layer in layers)",
        imports=("from torchao.float8 import Float8LinearConfig, convert_to_float8_training",),
        multiple=16,
    )


def _convertible(setup: TrainingSetup, name: str, multiple: int = 1) -> dict[str, nn.Module]:
    """The model's layers to convert, all nn.Linear now, whose width and height divide by `multiple`.

    Raises Unsupported if there are none.
    """
    # torchao silently skips Conv1D: in GPT-2 it would convert only the output head.
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
    # Both own the weight: a masked weight is computed in each forward pass, and is not a parameter that torchao could
    # take over.
    excludes={"prune_magnitude_50"},
    slot="quantization",
    needs=[TORCHAO],
    source="https://arxiv.org/abs/1712.05877",
    code=_qat("int8", "PerAxis", "0"),
)
def qat_int8(setup: TrainingSetup) -> TrainingSetup:
    """Weights and inputs of linear layers are rounded to int8 and back, so that the model learns to be served in int8.

    Quantization-aware training: it costs time here for accuracy later. Weights stay float32 and tied weights stay tied.
    """
    from torchao.quantization import PerAxis

    return _fake_quantized(setup, "qat_int8", torch.int8, PerAxis(0))


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    excludes={"prune_magnitude_50"},
    slot="quantization",
    needs=[TORCHAO],
    loss_tolerance=1e-2,
    source="https://arxiv.org/abs/1712.05877",
    code=_qat("int4", "PerGroup", "32", multiple=32),
)
def qat_int4(setup: TrainingSetup) -> TrainingSetup:
    """Weights are rounded to int4 in groups of 32, inputs to int8, and back: the model learns to be served that way.

    As qat_int8: it costs time here for accuracy later, and weights stay float32.
    """
    from torchao.quantization import PerGroup

    int4: torch.dtype = torch.int4  # type: ignore[attr-defined]  # torch's stubs leave it out
    return _fake_quantized(setup, "qat_int4", int4, PerGroup(32), multiple=32)


def _fake_quantized(
    setup: TrainingSetup, name: str, weights: torch.dtype, granularity: Any, multiple: int = 1
) -> TrainingSetup:
    """The setup whose linear layers round their weights, and their inputs to int8, in the forward pass."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.qat import QATConfig

    layers = _convertible(setup, name, multiple)
    served_as = Int8DynamicActivationIntxWeightConfig(weight_dtype=weights, weight_granularity=granularity)
    quantize_(setup.model, QATConfig(served_as, step="prepare"), filter_fn=lambda _, path: path in layers)
    return setup


class _Int8Products(NamedTuple):
    """Which products of a linear layer run in int8, as torchao's config says it, which torch.compile cannot take in.

    With the dataclass compile leaves its graph at every layer, and the casts that it should fuse run one by one.
    """

    output: bool = True
    grad_input: bool = True
    grad_weight: bool = True


def _keep_row_major(layer: nn.Module) -> None:
    """torchao flattens with view(), which attention's transposed gradients refuse; nn.Linear takes any layout."""
    layer.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous())
    # On its way back through both, a gradient is laid out row after row; autograd and torch.compile keep that.
    layer.register_forward_hook(lambda _, inputs, output: output.flatten().view(output.shape))


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    # The int8 layer ignores autocast and then multiplies operands of two types, which its GPU kernel refuses.
    excludes={"amp_bf16", "amp_fp16", "prune_magnitude_50"},
    slot="quantization",
    # On a GPU the products are a Triton kernel, and Triton calls a compiler for what launches it.
    needs=[TORCHAO, on_gpu(compiler)],
    source="https://github.com/pytorch/ao/tree/main/torchao/prototype/quantized_training",
    code=_written(
        "config = Int8MixedPrecisionTrainingConfig(module_swap=True)",
        QUANTIZE,
        'Products = namedtuple("Products", ["output", "grad_input", "grad_weight"])',
        "for layer in layers:",
        "    layer.config = Products(True, True, True)  # as torch.compile can take it in",
        "    # torchao flattens with view(), which attention's layouts refuse.",
        "    layer.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous())",
        "    layer.register_forward_hook(lambda _, __, out: out.flatten().view(out.shape))",
        imports=(
            "from collections import namedtuple",
            "from torchao.prototype.quantized_training import Int8MixedPrecisionTrainingConfig",
            "from torchao.quantization import quantize_",
        ),
    ),
)
def int8_mixed_precision(setup: TrainingSetup) -> TrainingSetup:
    """Linear layers round their inputs, weights and gradients to int8 and multiply those, forward and backward.

    Weights stay float32; the output head is left alone.
    """
    from torch.utils._triton import has_triton
    from torchao.prototype.quantized_training import Int8MixedPrecisionTrainingConfig
    from torchao.quantization import quantize_

    if setup.device.type == "cpu" and has_triton():
        # torchao chooses at import, by what the machine has and not by where the model is.
        raise Unsupported("int8_mixed_precision uses a Triton kernel where there is a GPU, which has no CPU form")
    layers = _convertible(setup, "int8_mixed_precision")
    # The default, a weight subclass, multiplies in float32 without a word: torchao 0.18 registers its F.linear in the
    # table of ATen operators, where nothing looks it up.
    config = Int8MixedPrecisionTrainingConfig(module_swap=True)
    quantize_(setup.model, config, filter_fn=lambda _, path: path in layers)
    for layer in layers.values():
        layer.config = _Int8Products()  # type: ignore[assignment]  # nn.Module declares tensors and modules only
        _keep_row_major(layer)
    return replace(setup, compute="int8")


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    excludes={
        # The layer's backward multiplies operands of two types under autocast.
        "amp_bf16",
        "amp_fp16",
        # Their batched kernels and norms have no form for weights that are not floats.
        "adafactor",
        "adamw_foreach",
        "adamw_fused",
        "lamb",
        "lion",
        "schedule_free_adamw",
        # A mask multiplies weights in place, element by element.
        "prune_magnitude_50",
        "prune_gradual",
        # Each rank would round by its own dice, and the copies of a weight would drift apart.
        "distribute",
    },
    slot="quantization",
    needs=[TORCHAO],
    loss_tolerance=5e-3,
    source="https://github.com/pytorch/ao/tree/main/torchao/prototype/quantized_training",
)
def int8_weights(setup: TrainingSetup) -> TrainingSetup:
    """Weights of linear layers are stored only in int8; each update rounds them up or down at random.

    The rounding is right on average, so that small updates are not lost. Products run in the format of the inputs.
    """
    from torchao.prototype.quantized_training import int8_weight_only_quantized_training
    from torchao.quantization import quantize_

    _let_weights_decay()
    layers = _convertible(setup, "int8_weights")
    trained = {path: layer.get_parameter("weight").requires_grad for path, layer in layers.items()}
    quantize_(setup.model, int8_weight_only_quantized_training(), filter_fn=lambda _, path: path in layers)
    for path, layer in layers.items():
        layer.get_parameter("weight").requires_grad_(trained[path])
        _keep_row_major(layer)
    return setup


def _let_weights_decay() -> None:
    """Give torchao's int8 weights the one operation that they lack for AdamW: to be multiplied by a number, in place.

    Only the scales are multiplied, so weight decay does not round.
    """
    from torchao.prototype.quantized_training import Int8QuantizedTrainingLinearWeight

    def multiply(_call: object, _types: object, arguments: tuple[Any, float], _named: object) -> Any:
        weight, factor = arguments
        weight.scale.mul_(factor)
        return weight

    Int8QuantizedTrainingLinearWeight.implements([torch.ops.aten.mul_.Tensor, torch.ops.aten.mul_.Scalar])(multiply)


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    excludes={"prune_magnitude_50"},
    slot="quantization",
    needs=[TORCHAO, gpu((8, 9), "an Ada, Hopper or newer GPU")],
    source="https://arxiv.org/abs/2209.05433",
    code=_fp8("tensorwise"),
)
def fp8_tensorwise(setup: TrainingSetup) -> TrainingSetup:
    """Linear layers multiply inputs, weights and gradients as 8-bit floats, with one scale for each tensor.

    Weights stay float32; the output head is left alone. Without `compile` the casts are kernels of their own and can
    cost more than the products save (https://github.com/pytorch/ao/issues/685).
    """
    return _float8(setup, "tensorwise")


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    excludes={"prune_magnitude_50"},
    slot="quantization",
    needs=[TORCHAO, gpu((9, 0), "a Hopper or newer GPU")],
    source="https://arxiv.org/abs/2209.05433",
    code=_fp8("rowwise"),
)
def fp8_rowwise(setup: TrainingSetup) -> TrainingSetup:
    """Like fp8_tensorwise, but with a scale for each row: more accurate, and more work to cast."""
    return _float8(setup, "rowwise")


def _float8(setup: TrainingSetup, recipe: str) -> TrainingSetup:
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    tokens = setup.workload.tokens_per_sample
    if tokens is not None and tokens % 16:
        # The gradient of a weight sums over tokens, and float8 kernels want every dimension in sixteens.
        raise Unsupported(f"fp8_{recipe} needs a sequence that divides by 16; it is {tokens}")
    layers = _convertible(setup, f"fp8_{recipe}", multiple=16)
    config = Float8LinearConfig.from_recipe_name(recipe)
    convert_to_float8_training(setup.model, module_filter_fn=lambda _, path: path in layers, config=config)
    return replace(setup, compute="float8")
