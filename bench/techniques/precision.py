"""Number formats of the forward and backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from bench.host import gpu
from bench.registry import Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._adamw import check_plain
from bench.workload import Batch

AMP_SOURCE = "https://docs.pytorch.org/docs/stable/amp.html"


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="precision",
    needs=[gpu((8, 0), "an Ampere or newer GPU")],
    source="https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices",
    code=Code(
        first=('torch.set_float32_matmul_precision("high")', "torch.backends.cudnn.allow_tf32 = True"),
        trainer={"tf32": True},
    ),
)
def tf32(setup: TrainingSetup) -> TrainingSetup:
    """Matrix products round their float32 inputs to TensorFloat-32; everything else stays float32."""
    _check_changes(setup, "tf32", "bfloat16", "float16")
    let_products_round_to_tf32()
    return replace(setup, compute=unless_narrower(setup, "tf32"))


def let_products_round_to_tf32() -> None:
    """Let this process multiply float32 matrices in TensorFloat-32 on a GPU.

    By torch's older switches: once a newer one (`fp32_precision`) is set, reading an older one raises, and inductor
    reads them, in torch 2.11 as in 2.13.
    """
    torch.set_float32_matmul_precision("high")
    # Convolutions and recurrent layers; on from the start, but a user's module may have switched it off.
    torch.backends.cudnn.allow_tf32 = True


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="precision",
    source=AMP_SOURCE,
    code=Code(
        contexts=("torch.autocast(DEVICE, dtype=torch.bfloat16)",),
        trainer={"bf16": True},
        lightning={"precision": "bf16-mixed"},
    ),
)
def amp_bf16(setup: TrainingSetup) -> TrainingSetup:
    """Forward and loss under bfloat16 autocast; parameters and optimizer state stay float32."""
    autocast = partial(torch.autocast, setup.device.type, dtype=torch.bfloat16)
    return replace(setup, autocast=autocast, compute=unless_narrower(setup, "bfloat16"))


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="precision",
    source=AMP_SOURCE,
    code=Code(
        contexts=("torch.autocast(DEVICE, dtype=torch.float16)",),
        scaler=True,
        trainer={"fp16": True},
        lightning={"precision": "16-mixed"},
    ),
)
def amp_fp16(setup: TrainingSetup) -> TrainingSetup:
    """Forward and loss under float16 autocast with loss scaling; parameters and optimizer state stay float32."""
    autocast = partial(torch.autocast, setup.device.type, dtype=torch.float16)
    scaler = torch.amp.GradScaler(setup.device.type)
    return replace(setup, autocast=autocast, scaler=scaler, compute=unless_narrower(setup, "float16"))


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="precision",
    source="https://arxiv.org/abs/1905.12322",
    code=Code(
        model=("model.to(torch.bfloat16)",), number_format="torch.bfloat16", lightning={"precision": "bf16-true"}
    ),
)
def pure_bf16(setup: TrainingSetup) -> TrainingSetup:
    """Parameters, gradients, activations and optimizer state are all bfloat16."""
    _check_changes(setup, "pure_bf16", "bfloat16")
    compute = unless_narrower(setup, "bfloat16")
    return replace(
        setup,
        model=setup.model.to(torch.bfloat16),
        loss=partial(_of_batch_in, torch.bfloat16, setup.loss),
        compute=compute,
    )


def _of_batch_in(
    dtype: torch.dtype, loss: Callable[[nn.Module, Batch], Tensor], model: nn.Module, batch: Batch
) -> Tensor:
    """The loss on a batch whose pixels, sounds and the like have the format of the weights that they meet."""
    return loss(model, tree_map_only(Tensor, lambda item: item.to(dtype) if item.is_floating_point() else item, batch))


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    # The epsilon of every other optimizer would be 0 in float16, and its first update a division by 0;
    # the norm that clipping looks at would be the enlarged one; the smallest int8 scales would be 0 too.
    excludes={"optimizer", "clip_gradients", "int8_mixed_precision"},
    slot="precision",
    loss_tolerance=5e-3,
    source="https://arxiv.org/abs/1710.03740",
    code=Code(
        model=("model.to(torch.float16)",),
        number_format="torch.float16",
        optimizer=("optimizer = torch.optim.AdamW({parameters}, lr=LEARNING_RATE, eps=1e-4)",),
        # AdamW divides the factor out again.
        loss=("loss.register_hook(lambda gradient: gradient * 1024)",),
    ),
)
def pure_fp16(setup: TrainingSetup) -> TrainingSetup:
    """Parameters, gradients, activations and AdamW's state are all float16; gradients are 1024 times as large.

    AdamW divides each gradient by its own size, so the factor leaves the update as it is. Without it the squares of
    the gradients would be lost in float16; its epsilon, lost too, is raised to 1e-4, a tenth of a millionth unscaled.
    """
    _check_changes(setup, "pure_fp16", "float16")
    check_plain(setup, "pure_fp16")
    compute = unless_narrower(setup, "float16")
    return replace(
        setup,
        model=setup.model.to(torch.float16),
        loss=partial(_with_larger_gradients, partial(_of_batch_in, torch.float16, setup.loss)),
        optimizer=partial(torch.optim.AdamW, lr=setup.workload.learning_rate, eps=1e-4),
        compute=compute,
    )


def _with_larger_gradients(loss: Callable[[nn.Module, Batch], Tensor], model: nn.Module, batch: Batch) -> Tensor:
    value = loss(model, batch)
    if value.requires_grad:
        value.register_hook(lambda gradient: gradient * 1024)
    return value


def _check_changes(setup: TrainingSetup, name: str, *formats: str) -> None:
    """Raises Unsupported if every weight of the model has one of these formats already."""
    found = {str(item.dtype).removeprefix("torch.") for item in setup.model.parameters() if item.is_floating_point()}
    if found and found <= set(formats):
        raise Unsupported(f"{name} changes nothing: the model's weights are {' and '.join(sorted(found))} already")


def unless_narrower(setup: TrainingSetup, compute: str) -> str:
    """The number format of the large products once a technique asks for `compute`: what is narrower already stays."""
    return compute if setup.compute in ("float32", "tf32") else setup.compute
