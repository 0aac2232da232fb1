"""Smaller numbers where a model is only run: quantization after training, through torchao."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.host import package
from bench.registry import Change, Stage, technique
from bench.setup import TrainingSetup, Unsupported
from bench.spec import Phase
from bench.techniques._conv1d import conv1d_to_linear, linear_layers

INFERENCE_DOCS = "https://docs.pytorch.org/ao/stable/workflows/inference.html"


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="quantization",
    excludes={"precision"},  # The int8 kernels take and give float32.
    needs=[package("torchao", "torchao")],
    phases={Phase.INFER},
    source=INFERENCE_DOCS,
)
def serve_int8(setup: TrainingSetup) -> TrainingSetup:
    """Linear layers multiply int8 weights with inputs that are rounded to int8 on the fly."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return replace(_quantized(setup, "serve_int8", Int8DynamicActivationInt8WeightConfig()), compute="int8")


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="quantization",
    excludes={"precision"},
    needs=[package("torchao", "torchao")],
    phases={Phase.INFER},
    source=INFERENCE_DOCS,
)
def serve_int8_weights(setup: TrainingSetup) -> TrainingSetup:
    """Linear layers keep their weights in int8, which takes a quarter of the memory, and multiply in float32."""
    from torchao.quantization import Int8WeightOnlyConfig

    return _quantized(setup, "serve_int8_weights", Int8WeightOnlyConfig())


def _quantized(setup: TrainingSetup, name: str, config: Any) -> TrainingSetup:
    from torchao.quantization import quantize_

    # torchao passes over a Conv1D without a word.
    conv1d_to_linear(setup.model)
    layers = linear_layers(setup.model)
    if not layers:
        raise Unsupported(f"{name} needs nn.Linear or Conv1D layers under the output head; the model has none")
    quantize_(setup.model, config, filter_fn=lambda _, path: path in layers)
    return setup
