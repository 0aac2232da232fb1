"""Graph capture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.host import compiler, gpu
from bench.registry import Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._blocks import blocks
from bench.workload import Batch

COMPILE_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.compile.html"
# Fused kernels round in another order; the differences stay within the tolerance for numerics.
ROUNDS = {Change.NUMERICS}
# The gradients of the first micro-batch are in the graphs' memory, and the second overwrites them
# (pytorch/pytorch#169545).
ONE_BACKWARD = {"accumulate"}


def _compiled(setup: TrainingSetup, **options: Any) -> TrainingSetup:
    return replace(setup, model=cast(nn.Module, torch.compile(setup.model, **options)))


def _replayed(setup: TrainingSetup, **options: Any) -> TrainingSetup:
    """Compiled into CUDA graphs. Each replay writes to the same memory, so the loss is copied out of it."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return setup.loss(model, batch).clone()

    return replace(_compiled(setup, **options), loss=loss)


@technique(
    stage=Stage.COMPILE,
    changes=ROUNDS,
    slot="compile",
    needs=[compiler],
    source=COMPILE_DOCS,
    code=Code(model=("model = torch.compile(model)",), trainer={"torch_compile": True}),
)
def compile(setup: TrainingSetup) -> TrainingSetup:
    """The model is captured and fused by torch.compile (inductor) with its defaults."""
    return _compiled(setup)


@technique(
    stage=Stage.COMPILE,
    changes=ROUNDS,
    # torch 2.13 fails to capture a checkpointed layer with symbolic shapes (lift_tracked_freevar_to_input).
    excludes={"checkpoint"},
    slot="compile",
    needs=[compiler],
    source=COMPILE_DOCS,
    code=Code(model=("model = torch.compile(model, dynamic=True)",)),
)
def compile_dynamic(setup: TrainingSetup) -> TrainingSetup:
    """torch.compile for all batch sizes and lengths at once, so that a new shape is not compiled again."""
    return _compiled(setup, dynamic=True)


@technique(
    stage=Stage.COMPILE,
    changes=ROUNDS,
    slot="compile",
    needs=[compiler],
    source="https://docs.pytorch.org/tutorials/recipes/regional_compilation.html",
    code=Code(model=("for block in {blocks}:", "    block.compile()")),
)
def compile_blocks(setup: TrainingSetup) -> TrainingSetup:
    """Each layer is compiled by itself; identical layers share one compilation, and nothing around them is compiled."""
    # A block that is called twice is compiled once.
    found = dict.fromkeys(blocks(setup.model))
    if not found:
        raise Unsupported("compile_blocks needs a model whose layers are alike in an nn.ModuleList; it has none")
    for block in found:
        block.compile()
    return setup


@technique(
    stage=Stage.COMPILE,
    changes=ROUNDS,
    excludes=ONE_BACKWARD,
    slot="compile",
    needs=[gpu(), compiler],
    source=COMPILE_DOCS,
    code=Code(
        model=('model = torch.compile(model, mode="reduce-overhead")',),
        trainer={"torch_compile": True, "torch_compile_mode": "reduce-overhead"},
    ),
)
def compile_reduce_overhead(setup: TrainingSetup) -> TrainingSetup:
    """torch.compile whose kernels are recorded once as CUDA graphs, then launched together instead of one by one."""
    return _replayed(setup, mode="reduce-overhead")


@technique(
    stage=Stage.COMPILE,
    changes=ROUNDS,
    excludes=ONE_BACKWARD,
    slot="compile",
    needs=[compiler],
    source=COMPILE_DOCS,
    code=Code(
        model=('model = torch.compile(model, mode="max-autotune")',),
        trainer={"torch_compile": True, "torch_compile_mode": "max-autotune"},
    ),
)
def compile_max_autotune(setup: TrainingSetup) -> TrainingSetup:
    """torch.compile that times several kernels per matrix product and keeps the fastest; on a GPU with CUDA graphs.

    Compiling takes far longer.
    """
    return _replayed(setup, mode="max-autotune")


@technique(
    stage=Stage.COMPILE,
    excludes=ONE_BACKWARD,
    slot="compile",
    needs=[gpu()],
    source="https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs",
    code=Code(
        model=('model = torch.compile(model, backend="cudagraphs")',),
        trainer={"torch_compile": True, "torch_compile_backend": "cudagraphs"},
    ),
)
def cuda_graphs(setup: TrainingSetup) -> TrainingSetup:
    """The model's own kernels are recorded once as CUDA graphs and launched together; none is fused or rewritten."""
    return _replayed(setup, backend="cudagraphs")
