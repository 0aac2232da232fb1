"""Less memory for more compute, or for more traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.optim import Optimizer
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from bench.host import gpu, package
from bench.registry import Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._adamw import check_plain
from bench.techniques._joint import Group, Joint, as_groups, as_parameters, part_of
from bench.workload import Batch

MATRIX_PRODUCTS = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
    torch.ops.aten._int_mm.default,
    torch.ops.aten._scaled_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
]
"""Operations whose results selective checkpointing keeps: attention in one kernel is two products and a softmax."""


def _checkpoint(setup: TrainingSetup, name: str, **options: Any) -> TrainingSetup:
    model = setup.model
    # transformers has renamed the method and will drop the old name.
    enable = getattr(model, "activation_checkpointing_enable", None) or getattr(
        model, "gradient_checkpointing_enable", None
    )
    if enable is None:
        raise Unsupported(f"{name} needs a model with gradient_checkpointing_enable(), as transformers models have")
    if not getattr(model, "supports_gradient_checkpointing", True):
        raise Unsupported(f"{name} needs a model that supports checkpointing; {type(model).__name__} does not")
    enable({"use_reentrant": False, **options})
    return setup


@technique(
    stage=Stage.MEMORY,
    slot="checkpoint",
    source="https://arxiv.org/abs/1604.06174",
    code=Code(
        model=('model.gradient_checkpointing_enable({"use_reentrant": False})',),
        trainer={"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    ),
)
def checkpoint_activations(setup: TrainingSetup) -> TrainingSetup:
    """Activations inside each layer are dropped in the forward pass and computed again in the backward pass."""
    return _checkpoint(setup, "checkpoint_activations")


@technique(
    stage=Stage.MEMORY,
    slot="checkpoint",
    source="https://docs.pytorch.org/docs/stable/checkpoint.html#torch.utils.checkpoint.create_selective_checkpoint_contexts",
    code=Code(
        imports=(
            "from functools import partial",
            "from torch.utils.checkpoint import create_selective_checkpoint_contexts",
        ),
        model=(
            "kept = [",
            *(f"    torch.ops.{operation}," for operation in MATRIX_PRODUCTS),
            "]",
            "contexts = partial(create_selective_checkpoint_contexts, kept)",
            'model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})',
        ),
    ),
)
def checkpoint_selective(setup: TrainingSetup) -> TrainingSetup:
    """Inside each layer the results of matrix products are kept; only the cheaper rest is computed again."""
    keep = partial(create_selective_checkpoint_contexts, MATRIX_PRODUCTS)
    return _checkpoint(setup, "checkpoint_selective", context_fn=keep)


@technique(
    stage=Stage.MEMORY,
    needs=[gpu()],
    source="https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.graph.save_on_cpu",
    code=Code(imports=("from torch.autograd.graph import save_on_cpu",), contexts=("save_on_cpu(pin_memory=True)",)),
)
def offload_activations(setup: TrainingSetup) -> TrainingSetup:
    """Tensors kept for the backward pass are moved to pinned host memory and copied back when needed."""

    def offloaded(model: nn.Module, batch: Batch) -> Tensor:
        with save_on_cpu(pin_memory=True):
            return setup.loss(model, batch)

    return replace(setup, loss=offloaded)


UPDATED_AT_ONCE = """\
def update_at_once(optimizer, parameter):
    \"""Update a parameter in the backward pass, and free its gradient.\"""
    optimizer.step()
    parameter.grad = None"""


class _InBackward(Joint):
    """Its parts have each updated one parameter, in the backward pass, by the time that a step is asked for."""

    def __init__(self, parts: dict[Tensor, Optimizer]) -> None:
        super().__init__(list(parts.values()))
        for parameter, part in parts.items():
            parameter.register_post_accumulate_grad_hook(partial(_update, part))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """An update is complete: hooks are called."""


def _update(part: Optimizer, parameter: Tensor) -> None:
    part.step()
    parameter.grad = None


@technique(
    stage=Stage.OPTIMIZER,
    slot="optimizer",
    # A gradient is used and gone before the next micro-batch adds to it, a scaler looks at it, or ranks have met.
    excludes={"accumulate", "amp_fp16", "distribute"},
    source="https://arxiv.org/abs/2306.09782",
    code=Code(
        functions=(UPDATED_AT_ONCE,),
        optimizer=(
            "for parameter in {parameters}:",
            "    if parameter.requires_grad:",
            "        own = torch.optim.AdamW([parameter], lr=LEARNING_RATE)",
            "        parameter.register_post_accumulate_grad_hook(partial(update_at_once, own))",
        ),
        imports=("from functools import partial",),
        update=(),
    ),
)
def optimizer_in_backward(setup: TrainingSetup) -> TrainingSetup:
    """AdamW updates a parameter once its gradient is ready, then frees the gradient: they are never all in memory."""
    make = setup.optimizer

    def in_backward(parameters: Iterable[Tensor] | Iterable[Group]) -> Optimizer:
        groups = as_groups(parameters)
        single = {item: part_of(group, [item]) for group in groups for item in group["params"]}
        return _InBackward({item: make(as_parameters([group])) for item, group in single.items()})

    return replace(setup, optimizer=in_backward)


class _Offloaded(Joint):
    """torchao's optimizer, which has neither hooks nor state of its own, as the optimizer that it is made of."""

    def __init__(self, inner: Any) -> None:
        on_device = [] if inner.d_opt is None else [inner.d_opt]
        super().__init__([*on_device, *inner.optim_dict.values()])
        self._inner = inner

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update on the host what is large, as its gradient arrives there, and copy it back."""
        self._inner.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Free the gradients on the device; the host's are buffers that are written over."""
        self._inner.zero_grad()


@technique(
    stage=Stage.OPTIMIZER,
    # The host's AdamW is the fused kernel, which rounds in another order than the GPU's.
    changes={Change.NUMERICS},
    slot="optimizer",
    # Gradients leave for the host as they are made: before a scaler divides them or ranks have met.
    excludes={"amp_fp16", "distribute"},
    needs=[gpu(), package("torchao", "torchao")],
    source="https://arxiv.org/abs/2101.06840",
    code=Code(
        imports=("from torchao.optim import CPUOffloadOptimizer",),
        optimizer=("optimizer = CPUOffloadOptimizer({parameters}, torch.optim.AdamW, lr=LEARNING_RATE)",),
    ),
)
def offload_optimizer(setup: TrainingSetup) -> TrainingSetup:
    """AdamW's state stays in host memory; the host takes the gradients, updates the weights and sends them back."""
    from torchao.optim import CPUOffloadOptimizer

    check_plain(setup, "offload_optimizer")

    def offloaded(parameters: Iterable[Tensor] | Iterable[Group]) -> Optimizer:
        return _Offloaded(
            CPUOffloadOptimizer(as_groups(parameters), torch.optim.AdamW, lr=setup.workload.learning_rate)
        )

    return replace(setup, optimizer=offloaded)
