"""AdamW with its state in few bits, through torchao, which compiles the update of each shape at its first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch.optim import Optimizer

from bench.host import compiler, package
from bench.registry import Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._adamw import check_plain

SMALLEST = 4096
"""Elements under which torchao keeps the state of a tensor as it is."""

low_bit = partial(
    technique,
    stage=Stage.OPTIMIZER,
    changes={Change.NUMERICS},
    # Within ten updates, losses differ by up to 0.6 % for GPT-2 and BERT, and by up to 1 % for a small ResNet.
    loss_tolerance=2e-2,
    slot="optimizer",
    needs=[package("torchao", "torchao"), compiler],
)


def _written(kind: str, block: int, trainer: str | None = None) -> Code:
    return Code(
        imports=(f"from torchao.optim import {kind}",),
        optimizer=(f"optimizer = {kind}({{parameters}}, lr=LEARNING_RATE, block_size={block})",),
        trainer=None if trainer is None else {"optim": trainer},
    )


def _low_bit(setup: TrainingSetup, kind: Callable[..., Optimizer], block: int) -> TrainingSetup:
    """The setup with this optimizer. Raises Unsupported where torchao would pass over every tensor without a word."""
    name = f"adamw_{kind.__name__.removeprefix('AdamW').lower()}"
    check_plain(setup, name)
    trained = [item for item in setup.model.parameters() if item.requires_grad]
    if not any(item.numel() >= SMALLEST and item.numel() % block == 0 for item in trained):
        raise Unsupported(f"{name} needs a trained tensor of {SMALLEST} elements or more, in whole blocks of {block}")
    return replace(setup, optimizer=partial(kind, lr=setup.workload.learning_rate, block_size=block))


@low_bit(
    source="https://arxiv.org/abs/2110.02861",
    code=_written("AdamW8bit", 256, trainer="adamw_torch_8bit"),
)
def adamw_8bit(setup: TrainingSetup) -> TrainingSetup:
    """AdamW whose state is 8-bit codes with one scale for each block of 256 elements."""
    from torchao.optim import AdamW8bit

    return _low_bit(setup, AdamW8bit, 256)


@low_bit(
    source="https://arxiv.org/abs/2309.01507",
    code=_written("AdamW4bit", 128, trainer="adamw_torch_4bit"),
)
def adamw_4bit(setup: TrainingSetup) -> TrainingSetup:
    """AdamW whose state is 4-bit codes with one scale for each block of 128 elements."""
    from torchao.optim import AdamW4bit

    return _low_bit(setup, AdamW4bit, 128)


@low_bit(
    source="https://docs.pytorch.org/ao/stable/api_reference/generated/torchao.optim.AdamWFp8.html",
    code=_written("AdamWFp8", 256),
)
def adamw_fp8(setup: TrainingSetup) -> TrainingSetup:
    """AdamW whose state is 8-bit floats (e4m3) with one scale for each block of 256 elements.

    Squares of gradients far below the largest of their block round to 0: in GPT-2, where queries, keys and values share
    blocks, these weights then move more than twice as far as under AdamW.
    """
    from torchao.optim import AdamWFp8

    return _low_bit(setup, AdamWFp8, 256)
